"""A frame of a result beside its truth: both cropped, and the areas that scores follow from."""

from __future__ import annotations

from operator import add
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import StackError, UsageError
from engine.labels.overlaps import Overlaps, overlaps_of
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
    """The areas of all objects and overlaps of two label images of the same shape, of any ids."""
    return overlaps_of(_as_ids(result), _as_ids(truth))


def _as_ids(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels as integers that fit 32 bits, renumbered where they do not."""
    labels = whole_numbers(labels)
    if labels.size == 0 or int(labels.max()) < 1 << 32:
        return labels
    ids, dense = np.unique(labels, return_inverse=True)
    return dense if ids[0] == 0 else dense + 1
