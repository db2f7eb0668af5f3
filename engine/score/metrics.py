"""Scores of one frame's labels against its truth, as sums that can be pooled over frames.

All of them follow from one table, the areas of all overlaps of a result's objects with the
truth's, so a frame is looked at once:

            truth   . 1 1 .        overlaps    result 7 & truth 1: 1 px     areas   7: 2 px
                    . 1 1 .                    result 8 & truth 1: 2 px             8: 2 px
            result  7 7 8 .                                                         1: 4 px
                    . . 8 .
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from engine.errors import StackError, UsageError

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)  # of IoU, for F1


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


@dataclass(frozen=True)
class Score:
    """What one frame adds to the scores; the sum of two is the score of both frames pooled.

    A score that would be 0 / 0, as SEG is where the truth has no object, is NaN.
    """

    frames: int = 0
    both_px: int = 0  # foreground of result and truth
    result_px: int = 0
    truth_px: int = 0
    result_objects: int = 0
    truth_objects: int = 0
    jaccard_sum: float = 0.0  # over the truth's objects, see `seg`
    matched: tuple[int, ...] = (0,) * len(THRESHOLDS)  # pairs at each IoU of THRESHOLDS

    def __add__(self, other: Score) -> Score:
        return Score(
            self.frames + other.frames,
            self.both_px + other.both_px,
            self.result_px + other.result_px,
            self.truth_px + other.truth_px,
            self.result_objects + other.result_objects,
            self.truth_objects + other.truth_objects,
            self.jaccard_sum + other.jaccard_sum,
            tuple(a + b for a, b in zip(self.matched, other.matched, strict=True)),
        )

    @property
    def iou(self) -> float:
        """Foreground IoU: |A & B| / |A | B| for the foreground pixels A and B."""
        return _ratio(self.both_px, self.result_px + self.truth_px - self.both_px)

    @property
    def dice(self) -> float:
        """Foreground Dice: 2 |A & B| / (|A| + |B|)."""
        return _ratio(2 * self.both_px, self.result_px + self.truth_px)

    @property
    def seg(self) -> float:
        """SEG of the Cell Tracking Challenge (Maska et al. 2014, 10.1093/bioinformatics/btu080).

        The mean over all objects R of the truth of |R & S| / |R | S|, where S is the object of
        the result with |R & S| > |R| / 2; 0 where there is none. There is never more than one.
        Objects of the result beyond the truth's cost nothing here, but in F1.
        """
        return _ratio(self.jaccard_sum, self.truth_objects)

    @property
    def f1(self) -> tuple[float, ...]:
        """F1 at each IoU of THRESHOLDS: 2 TP / (2 TP + FP + FN).

        TP is the largest number of pairs, each object in one pair at most, whose IoU reaches the
        threshold, as in stardist's matching (Schmidt et al. 2018, 10.1007/978-3-030-00934-2_30).
        """
        objects = self.result_objects + self.truth_objects
        return tuple(_ratio(2 * pairs, objects) for pairs in self.matched)

    def to_dict(self) -> dict[str, Any]:
        """The scores by name, for tables and JSON; None where one is not defined."""
        scores = {"iou": self.iou, "dice": self.dice, "seg": self.seg}
        scores |= {f"f1_{at:g}": f1 for at, f1 in zip(THRESHOLDS, self.f1, strict=True)}
        counts = {"objects": self.result_objects, "truth_objects": self.truth_objects}
        return counts | {k: None if np.isnan(v) else v for k, v in scores.items()}


def score(result: NDArray[Any], truth: NDArray[Any], ignore_border: int = 0) -> Score:
    """Score one frame.

    Parameters
    ----------
    result, truth
        Label images of the same shape (..., Y, X), of integers; 0 is background.
    ignore_border
        Pixels left out along all four sides of Y and X, of both images.

    Raises StackError where the shapes differ or the labels are no whole numbers, and UsageError
    where the border leaves nothing to compare.
    """
    if result.shape != truth.shape:
        raise StackError(
            f"the result's frame has the shape {result.shape}, but the truth's {truth.shape}"
        )
    overlaps = count_overlaps(crop(result, ignore_border), crop(truth, ignore_border))
    return Score(
        frames=1,
        both_px=int(overlaps.area.sum()),
        result_px=int(overlaps.result_areas.sum()),
        truth_px=int(overlaps.truth_areas.sum()),
        result_objects=len(overlaps.result_areas),
        truth_objects=len(overlaps.truth_areas),
        jaccard_sum=_jaccard_sum(overlaps),
        matched=tuple(_matched(overlaps, at) for at in THRESHOLDS),
    )


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
    if labels.dtype == np.bool_:
        return labels.view(np.uint8)
    if labels.dtype.kind == "f" and np.array_equal(labels, np.floor(labels)):
        labels = labels.astype(np.int64)  # some programs save labels as floats
    if labels.dtype.kind not in "iu":
        raise StackError(f"labels must be whole numbers, not {labels.dtype.name} values")
    if labels.size == 0 or int(labels.max()) < 1 << 32:
        if labels.dtype.kind == "i" and labels.size and int(labels.min()) < 0:
            raise StackError("labels must not be negative")
        return labels
    ids, dense = np.unique(labels, return_inverse=True)
    return dense if ids[0] == 0 else dense + 1


def _jaccard_sum(overlaps: Overlaps) -> float:
    """The sum of the Jaccard indices that SEG is the mean of."""
    found = 2 * overlaps.area > overlaps.truth_areas[overlaps.truth]
    return math.fsum(overlaps.iou[found])  # the same in any order of objects


def _matched(overlaps: Overlaps, threshold: float) -> int:
    """The largest number of one-to-one pairs whose IoU is at least `threshold`."""
    good = overlaps.iou >= threshold
    if threshold > 0.5:  # an object has at most one partner that covers more than half
        return int(np.count_nonzero(good))
    shape = (len(overlaps.result_areas), len(overlaps.truth_areas))
    if not good.any():
        return 0
    # The matching takes 32-bit indices alone, which scipy before 1.15 does not make by itself.
    pairs = tuple(ids[good].astype(np.int32) for ids in (overlaps.result, overlaps.truth))
    edges = csr_array((np.ones(len(pairs[0]), bool), pairs), shape=shape)
    partners = maximum_bipartite_matching(edges, perm_type="column")
    return int(np.count_nonzero(partners >= 0))


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
