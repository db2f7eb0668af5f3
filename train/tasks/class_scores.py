"""Scores of classes: from the confusion between them, voxels pooled over frames."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from engine.store.files import whole_file
from train.rows import EpochRow, figure


def confusion(
    truth: NDArray[Any], found: NDArray[Any], counted: NDArray[np.bool_], n_classes: int
) -> NDArray[np.int64]:
    """Numbers of pixels (K, K): a row for each class of the truth, a column for each found."""
    at = truth[counted].astype(np.int64) * n_classes + found[counted]
    return np.bincount(at, minlength=n_classes**2).reshape(n_classes, n_classes)


@dataclass(frozen=True)
class ClassScores:
    """Scores of a part. What would be 0 / 0, of a class that neither has, is NaN."""

    names: tuple[str, ...]  # of the classes, background first
    confusion: NDArray[np.int64]  # (K, K), see `confusion`

    @property
    def accuracy(self) -> float:
        """Share of right pixels: high on any image that is mostly background."""
        return _ratio(int(self.confusion.trace()), int(self.confusion.sum()))

    @property
    def dice(self) -> dict[str, float]:
        """Dice by class, without background."""
        return self._each(lambda both, ours, theirs: _ratio(2 * both, ours + theirs))

    @property
    def iou(self) -> dict[str, float]:
        """IoU by class, without background."""
        return self._each(lambda both, ours, theirs: _ratio(both, ours + theirs - both))

    @property
    def foreground_iou(self) -> float:
        """IoU of all classes but background as one."""
        table = self.confusion
        return _ratio(int(table[1:, 1:].sum()), int(table.sum() - table[0, 0]))

    @property
    def mean_dice(self) -> float:
        """Mean over the classes that truth or prediction have, without background."""
        return _mean(self.dice)

    @property
    def rank(self) -> float:
        """The mean Dice; less than any where it is not defined."""
        return -1.0 if math.isnan(self.mean_dice) else self.mean_dice

    @property
    def unused(self) -> list[str]:
        """Classes that the truth has and the prediction never, background aside."""
        truth, found = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        at = [i for i in range(1, len(self.names)) if truth[i] and not found[i]]
        return [self.names[i] for i in at]

    @property
    def is_all_background(self) -> bool:
        """Whether no pixel is found to be anything else, though some are."""
        return bool(self.confusion[1:].sum()) and not self.confusion[:, 1:].any()

    def defined(self) -> dict[str, float]:
        """The scores by name, without those that nothing defines."""
        scores = {
            "iou": self.foreground_iou,
            "accuracy": self.accuracy,
            "mean_dice": self.mean_dice,
            "mean_iou": _mean(self.iou),
        }
        scores |= {f"dice_{name}": value for name, value in self.dice.items()}
        scores |= {f"iou_{name}": value for name, value in self.iou.items()}
        return {name: value for name, value in scores.items() if not math.isnan(value)}

    def write(self, path: Path) -> None:
        """The confusion as CSV: a row for each class of the truth."""
        with whole_file(path) as partial, partial.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["truth", *self.names])
            writer.writerows([n, *row] for n, row in zip(self.names, self.confusion, strict=True))

    def _each(self, of: Any) -> dict[str, float]:
        both = self.confusion.diagonal().tolist()
        ours, theirs = (self.confusion.sum(axis).tolist() for axis in (0, 1))
        values = list(map(of, both, ours, theirs))
        return dict(list(zip(self.names, values, strict=True))[1:])


@dataclass(frozen=True)
class ClassEpoch(EpochRow):
    """One row of history.csv, with a Dice and an IoU for each class."""

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_accuracy: float  # share of right pixels of the varied patches
    val_loss: float
    val_accuracy: float  # of whole validation frames
    val_mean_dice: float  # of the classes but background; the best epoch is chosen by it
    val_dice: Mapping[str, float] = field(default_factory=dict)  # by class
    val_iou: Mapping[str, float] = field(default_factory=dict)

    def as_row(self) -> dict[str, float]:
        """Values by column: `val_dice_NAME` and `val_iou_NAME` after the others."""
        values = {k: v for k, v in vars(self).items() if k not in ("val_dice", "val_iou")}
        values |= {f"val_dice_{name}": v for name, v in self.val_dice.items()}
        return values | {f"val_iou_{name}": v for name, v in self.val_iou.items()}

    @classmethod
    def from_row(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `as_row`."""
        by_class: dict[str, dict[str, float]] = {"val_dice": {}, "val_iou": {}}
        plain = {}
        for name, value in values.items():
            start = next((s for s in by_class if name.startswith(f"{s}_")), None)
            if start is None:
                plain[name] = value
            else:
                by_class[start][name.removeprefix(f"{start}_")] = value
        return cls(**plain, **by_class)  # type: ignore[arg-type]

    def in_words(self) -> str:
        """The figures, for a line on the screen."""
        classes = ", ".join(f"{name} {figure(v)}" for name, v in self.val_dice.items())
        return (
            f"loss {self.train_loss:.3f} (val {self.val_loss:.3f})  "
            f"accuracy {figure(self.train_accuracy)} (val {figure(self.val_accuracy)})  "
            f"val Dice {figure(self.val_mean_dice)}: {classes}"
        )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean(values: Mapping[str, float]) -> float:
    defined = [value for value in values.values() if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
