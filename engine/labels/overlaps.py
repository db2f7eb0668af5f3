"""The areas of all overlaps of the objects of two label images.

truth   . 1 1 .        overlaps    result 7 & truth 1: 1 px     areas   7: 2 px
        . 1 1 .                    result 8 & truth 1: 2 px             8: 2 px
result  7 7 8 .                                                         1: 4 px
        . . 8 .

The truth is whatever the result is compared with: an annotation, or labels of the same frame that
were made in another way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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


def overlaps_of(result: NDArray[Any], truth: NDArray[Any]) -> Overlaps:
    """The areas of all objects and overlaps of two label images of the same shape.

    Ids are integers from 0, the background, to 2**32 - 1.
    """
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
