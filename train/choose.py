"""Chooses a model's default threshold and minimum area on the validation part."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.labels.classes import foreground
from engine.results.score.metrics import score
from train.scores import Scores, label_objects

THRESHOLDS = tuple(round(0.3 + 0.05 * i, 2) for i in range(9))  # 0.3 .. 0.7
MIN_AREAS = (0, 10, 20, 30, 50, 80)  # px


@dataclass(frozen=True)
class Choice:
    """A threshold and a minimum area, with the validation scores they reach."""

    threshold: float
    min_area: int
    scores: Scores

    def as_dict(self) -> dict[str, float]:
        """The combination and the scores that are defined, rounded, as plain values."""
        rounded = {name: round(value, 5) for name, value in self.scores.defined().items()}
        return {"threshold": self.threshold, "min_area": self.min_area, **rounded}


def choose(
    maps: Sequence[NDArray[np.float32]], truths: Sequence[NDArray[Any]]
) -> tuple[Choice, list[Choice]]:
    """The best of all combinations by mean F1, and all of them.

    `maps` are foreground probabilities and `truths` instance labels, (Y, X) each and of the same
    frames. Among equals the threshold closest to one half and the smaller area win.
    """
    curve = [
        Choice(threshold, min_area, score_maps(maps, truths, threshold, min_area))
        for threshold in THRESHOLDS
        for min_area in MIN_AREAS
    ]
    best = max(curve, key=lambda c: (round(c.scores.rank, 4), -abs(c.threshold - 0.5), -c.min_area))
    return best, curve


def write_curve(path: Path, curve: Sequence[Choice]) -> None:
    """The scores of every combination as CSV, empty where one is not defined."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["threshold", "min_area", "iou", "f1", "f1_50"])
        writer.writeheader()
        writer.writerows(choice.as_dict() for choice in curve)


def score_maps(
    maps: Sequence[NDArray[np.float32]],
    truths: Sequence[NDArray[Any]],
    threshold: float,
    min_area: int,
) -> Scores:
    """Scores of probability maps turned into objects, against instance labels; (Y, X) each."""
    return Scores.pooled(
        score(label_objects(foreground(p, threshold), min_area), t)
        for p, t in zip(maps, truths, strict=True)
    )
