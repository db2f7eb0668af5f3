"""Figures of each epoch for TensorBoard, where it is installed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from train.rows import EpochRow


class Board:
    """Event files in the folder `tensorboard` of a run; nothing where TensorBoard is missing.

    `first_epoch` (from 0) is where a resumed run begins: what was written beyond it is void.
    """

    def __init__(self, run: Path, first_epoch: int, steps_per_epoch: int) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        step = first_epoch * steps_per_epoch + 1
        self._writer = SummaryWriter(
            str(run / "tensorboard"), purge_step=step if first_epoch else None
        )

    def add(self, row: EpochRow) -> None:
        """The figures of an epoch by step; `train_loss` is `loss/train`. Undefined ones are left
        out.
        """
        if self._writer is None:
            return
        for name, value in row.as_row().items():
            part, _, what = name.partition("_")
            if name not in ("epoch", "step") and not math.isnan(value):
                self._writer.add_scalar(f"{what}/{part}" if what else name, value, row.step)
        self._writer.flush()

    def close(self) -> None:
        """Finish the event file."""
        if self._writer is not None:
            self._writer.close()
