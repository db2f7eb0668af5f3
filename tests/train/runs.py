"""Small runs: settings that take a moment, and a note that nobody reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from train.settings import TrainSettings


def small(data: Path | str, **values: Any) -> TrainSettings:
    network = {"layout": "pairs", "channels": (2, 4), "patch": 32, "batch": 2, "workers": 0}
    run = {"epochs": 2, "steps_per_epoch": 3, "device": "cpu", "precision": "fp32"}
    return TrainSettings.model_validate(network | run | {"data": str(data)} | values)


def silent(_: str) -> None:
    pass
