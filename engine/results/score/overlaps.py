"""The areas of all overlaps of a result's objects with the truth's: what every score follows from.

truth   . 1 1 .        overlaps    result 7 & truth 1: 1 px     areas   7: 2 px
        . 1 1 .                    result 8 & truth 1: 2 px             8: 2 px
result  7 7 8 .                                                         1: 4 px
        . . 8 .
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import UsageError
from engine.truth.ids import whole_numbers


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


def count_overlaps(result: NDArray[Any], truth: NDArray[Any]) -> Overlaps:
    """The areas of all objects and overlaps of two label images of the same shape."""
    result, truth = _as_ids(result), _as_ids(truth)
    either = (result != 0) | (truth != 0)  # mostly a small part of the frame
    # Both ids in one number, so that one sort counts every combination.
    pairs = (result[either].astype(np.uint64) << 32) | truth[either].astype(np.uint64)
    pairs, counts = np.unique(pairs, return_counts=True)
    result_ids, result_at = np.unique(pairs >> 32, return_inverse=True)
    truth_ids, truth_at = np.unique(pairs & 0xFFFFFFFF, return_inverse=True)
    result_areas = np.zeros(len(result_ids), np.int64)
    truth_areas = np.zeros(len(truth_ids), np.int64)
    np.add.at(result_areas, result_at, counts)
    np.add.at(truth_areas, truth_at, counts)

    # Background is number 0 wherever an object of the other image lies on it.
    result_bg = int(len(result_ids) > 0 and result_ids[0] == 0)
    truth_bg = int(len(truth_ids) > 0 and truth_ids[0] == 0)
    both = (result_at >= result_bg) & (truth_at >= truth_bg)
    return Overlaps(
        result_areas[result_bg:],
        truth_areas[truth_bg:],
        result_at[both] - result_bg,
        truth_at[both] - truth_bg,
        counts[both],
    )


def _as_ids(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels as integers that fit 32 bits, renumbered where they do not."""
    labels = whole_numbers(labels)
    if labels.size == 0 or int(labels.max()) < 1 << 32:
        return labels
    ids, dense = np.unique(labels, return_inverse=True)
    return dense if ids[0] == 0 else dense + 1
