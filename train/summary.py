"""`summary.json`: a finished run in one small file, which `stackseg compare` reads."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

import engine
from engine.errors import ModelError
from engine.job.report import machine
from engine.store.files import whole_file
from train.checkpoint import Checkpoint
from train.curves import Timing
from train.networks import n_weights
from train.optimise import Arithmetic
from train.rows import EpochRow

NAME = "summary.json"
LIBRARIES = ("torch", "torchvision", "numpy", "scipy")


@dataclass(frozen=True)
class Summary:
    """What came of a run. Times are of its epochs: reading data and the end are not in them."""

    network: Mapping[str, Any]  # its arguments
    weights: int  # values that are learnt
    epochs: int
    steps: int  # of the optimiser
    seconds: float  # training and validation, of all epochs
    seconds_per_epoch: float
    share_waited: float  # of `seconds`, 0..1, in which the network waited for patches
    best_epoch: int  # whose weights best.pt has
    loss: Mapping[str, float]  # train and val, of that epoch
    scores: Mapping[str, float]  # val and, where there is one, test: by their names in best.pt
    chosen: Mapping[str, Any]  # threshold and so on
    frame: Sequence[int]  # shape (C, Y, X) of the first validation frame
    device: str
    precision: str
    threads: int  # of PyTorch
    processor: str
    cores: int | None
    system: str
    versions: Mapping[str, str]


def summarise(
    best: Checkpoint,
    history: Sequence[EpochRow],
    timings: Sequence[Timing],
    frame: Sequence[int],
    arithmetic: Arithmetic,
) -> Summary:
    """The summary of a run whose best state has been scored."""
    seconds, waited = sum(t.seconds for t in timings), sum(t.waited for t in timings)
    epoch, here = history[best.epoch - 1], machine()
    libraries = {name: version(name) for name in LIBRARIES}
    return Summary(
        network=best.network.as_json(),
        weights=n_weights(best.build()),
        epochs=len(history),
        steps=history[-1].step,
        seconds=round(seconds, 2),
        seconds_per_epoch=round(seconds / len(timings), 2),
        share_waited=round(waited / seconds, 4) if seconds else 0.0,
        best_epoch=best.epoch,
        loss={"train": epoch.train_loss, "val": epoch.val_loss},
        scores=dict(best.scores),
        chosen=dict(best.chosen),
        frame=list(frame),
        device=_device_name(arithmetic.device),
        precision=arithmetic.precision,
        threads=torch.get_num_threads(),
        processor=here.processor,
        cores=here.cores,
        system=here.system,
        versions={
            "stackseg": engine.__version__,
            "python": platform.python_version(),
            **libraries,
        },
    )


def write_summary(run: Path, summary: Summary) -> None:
    """Write it to the run's folder, whole or not at all."""
    with whole_file(run / NAME) as partial:
        partial.write_text(json.dumps(asdict(summary), indent=2) + "\n")


def read_summary(run: Path) -> Summary:
    """The summary of a run; ModelError where the folder has none that can be read."""
    path = run / NAME
    try:
        values = json.loads(path.read_text())
        # The call refuses unknown names, and pydantic wrong types.
        summary = TypeAdapter(Summary).validate_python(asdict(Summary(**values)))
        if "val" not in summary.loss:
            raise ValueError("lacks the loss of the validation part")
        return summary
    except FileNotFoundError:
        raise ModelError(
            f"{run}: has no {NAME}: no run has ended here; finish it by stackseg train --resume"
        ) from None
    except (OSError, ValueError, TypeError):
        raise ModelError(f"{path}: is not a summary of stackseg train; train again") from None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
