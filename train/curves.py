"""The history of a run: as CSV, a row an epoch, and as a picture of learning curves."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypeVar

from engine.store.files import whole_file


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv. Nothing in it depends on the clock: the same seed, the same rows.

    A score that nothing defines is NaN here, and empty there.
    """

    epoch: int  # from 1
    step: int  # optimiser steps done
    lr: float  # learning rate of the last step
    train_loss: float
    train_iou: float  # foreground IoU on the varied patches
    val_loss: float
    val_iou: float  # foreground IoU of whole validation frames, pooled
    val_f1: float  # mean F1 of objects at IoU 0.5 to 0.9: chooses the best epoch
    val_f1_50: float  # F1 at IoU 0.5


@dataclass(frozen=True)
class Timing:
    """One row of timings.csv: what depends on the clock, and so has a file of its own."""

    epoch: int  # from 1
    seconds: float  # training and validation
    waited: float  # seconds of it in which the network waited for patches


Row = TypeVar("Row", Epoch, Timing)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows so far; a kill leaves the file as it was."""
    with whole_file(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(rows[0])])
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _as_text(value) for name, value in asdict(row).items()})


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """The rows of a history.csv or a timings.csv."""
    with path.open(newline="") as file:
        return [kind(**{k: _number(k, v) for k, v in r.items()}) for r in csv.DictReader(file)]  # type: ignore[arg-type]


def draw_curves(path: Path, history: Sequence[Epoch]) -> None:
    """Loss and IoU over epochs, training dashed and validation solid, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    epochs = [row.epoch for row in history]
    best = max(history, key=lambda row: -1.0 if math.isnan(row.val_f1) else row.val_f1)
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [r.train_loss for r in history], "--", color="#7a5195", label="train")
    left.plot(epochs, [r.val_loss for r in history], "-", color="#7a5195", label="val")
    left.set(title="Loss", xlabel="epoch")
    right.plot(epochs, [r.train_iou for r in history], "--", color="#00798c", label="train IoU")
    right.plot(epochs, [r.val_iou for r in history], "-", color="#00798c", label="val IoU")
    right.plot(epochs, [r.val_f1 for r in history], ":", color="#333333", label="val F1 0.5-0.9")
    right.axvline(best.epoch, color="#999999", linewidth=0.8)
    right.annotate(f"best: {best.epoch}", (best.epoch, 0.02), xytext=(-3, 0), ha="right",
                   textcoords="offset points", fontsize=8)  # fmt: skip
    right.set(title="Foreground IoU and object F1", xlabel="epoch", ylim=(0, 1))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def _as_text(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _number(name: str, text: str) -> float:
    return int(text) if name in ("epoch", "step") else float(text or "nan")
