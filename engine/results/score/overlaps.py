"""The areas of all overlaps of a result's objects with the truth's: what every score follows from.

truth   . 1 1 .        overlaps    result 7 & truth 1: 1 px     areas   7: 2 px
        . 1 1 .                    result 8 & truth 1: 2 px             8: 2 px
result  7 7 8 .                                                         1: 4 px
        . . 8 .
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import add
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import StackError, UsageError
from engine.truth.ids import whole_numbers


class Areas(NamedTuple):
    """Pixels of a foreground, or of a class. A score that would be 0 / 0 is NaN."""

    both: int = 0  # in the result and in the truth
    result: int = 0
    truth: int = 0

    def plus(self, other: Areas) -> Areas:
        """The areas of two frames together."""
        return Areas(*map(add, self, other))

    @property
    def iou(self) -> float:
        """|A & B| / |A | B| for the pixels A of the result and B of the truth."""
        return ratio(self.both, self.result + self.truth - self.both)

    @property
    def dice(self) -> float:
        """2 |A & B| / (|A| + |B|)."""
        return ratio(2 * self.both, self.result + self.truth)


NONE = Areas()


def ratio(numerator: float, denominator: float) -> float:
    """The quotient; NaN where the denominator is 0."""
    return numerator / denominator if denominator else float("nan")


@dataclass(frozen=True)
class Overlaps:
    """Areas of the objects of two label images and of their overlaps, in pixels.

    Objects are numbered 0, 1, ... by increasing id; background is not an object. Entry k of
    `result`, `truth` and `area` says that object result[k] and object truth[k] share area[k] px.
    """

    result_areas: NDArray[np.int64]  # (objects of the result,)
    truth_areas: NDArray[np.int64]  # (objects of the truth,)
    result: NDArray[np.int64]  # (overlaps,)
    truth: NDArray[np.int64]  # (overlaps,)
    area: NDArray[np.int64]  # (overlaps,)

    @property
    def covering(self) -> NDArray[np.bool_]:
        """Which of them cover more than half of their object of the truth, shape (overlaps,)."""
        covering: NDArray[np.bool_] = 2 * self.area > self.truth_areas[self.truth]
        return covering

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of every overlapping pair, shape (overlaps,)."""
        union = self.result_areas[self.result] + self.truth_areas[self.truth] - self.area
        ratio: NDArray[np.float64] = self.area / union
        return ratio


def crop(labels: NDArray[Any], border: int) -> NDArray[Any]:
    """A view of `labels` (..., Y, X) without `border` pixels along the sides of Y and X."""
    height, width = labels.shape[-2:]
    if border < 0 or 2 * border >= min(height, width):
        raise UsageError(
            f"a border of {border} px leaves nothing of a frame of {height} x {width} px"
        )
    return labels[..., border : height - border, border : width - border]


def cropped(
    result: NDArray[Any], truth: NDArray[Any], border: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both without a border, see `crop`; StackError where their shapes differ."""
    if result.shape != truth.shape:
        raise StackError(
            f"the result's frame has the shape {result.shape}, but the truth's {truth.shape}"
        )
    return crop(result, border), crop(truth, border)


def count_overlaps(result: NDArray[Any], truth: NDArray[Any]) -> Overlaps:
    """The areas of all objects and overlaps of two label images of the same shape."""
    result, truth = _as_ids(result), _as_ids(truth)
    ours, theirs = result != 0, truth != 0
    result_ids, result_areas = np.unique(result[ours], return_counts=True)
    truth_ids, truth_areas = np.unique(truth[theirs], return_counts=True)
    both = ours & theirs
    # Both ids in one number, so that one sort counts every combination.
    pairs = (result[both].astype(np.uint64) << 32) | truth[both].astype(np.uint64)
    pairs, area = np.unique(pairs, return_counts=True)
    return Overlaps(
        result_areas,
        truth_areas,
        np.searchsorted(result_ids, pairs >> 32),
        np.searchsorted(truth_ids, pairs & 0xFFFFFFFF),
        area,
    )


def _as_ids(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels as integers that fit 32 bits, renumbered where they do not."""
    labels = whole_numbers(labels)
    if labels.size == 0 or int(labels.max()) < 1 << 32:
        return labels
    ids, dense = np.unique(labels, return_inverse=True)
    return dense if ids[0] == 0 else dense + 1
