"""Scores of objects: one frame's labels against its truth, as sums that can be pooled over frames.

All of them follow from one table, the areas of all overlaps (see `overlaps`), so a
frame is looked at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from engine.labels.overlaps import Overlaps
from engine.results.result import LabelClass
from engine.results.score.overlaps import NONE, Areas, count_overlaps, cropped, ratio

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)  # of IoU, for F1 and AP
MISSED, SPLIT, SPURIOUS = 10, 5, 1  # weights of the challenge's AOGM-D: w_FN, w_NS, w_FP


@dataclass(frozen=True)
class Detection:
    """What turns the objects found into the markers: the counts behind DET.

    A marker is found by the object that covers more than half of it; there is never more than
    one. An object that finds several markers has to be split once for each but the first.
    """

    objects: int = 0  # of the result
    markers: int = 0
    missed: int = 0  # markers that no object finds
    splits: int = 0
    spurious: int = 0  # objects that find no marker

    def __add__(self, other: Detection) -> Detection:
        return Detection(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def det(self) -> float:
        """DET of the Cell Tracking Challenge (Matula et al. 2015, 10.1371/journal.pone.0144959).

        1 - min(AOGM-D, AOGM-D0) / AOGM-D0, where AOGM-D is the weighted sum of what is missed,
        to be split and spurious, and AOGM-D0 that of an empty result.
        """
        cost = MISSED * self.missed + SPLIT * self.splits + SPURIOUS * self.spurious
        return 1 - ratio(min(cost, MISSED * self.markers), MISSED * self.markers)


@dataclass(frozen=True)
class Score:
    """What one frame adds to the scores; the sum of two is the score of both frames pooled.

    A score that would be 0 / 0, as SEG is where the truth has no object, is NaN. A frame that has
    markers alone adds to `detection` alone, as in the challenge.
    """

    frames: int = 0  # with a truth of their objects
    foreground: Areas = NONE
    result_objects: int = 0
    truth_objects: int = 0
    jaccard_sum: float = 0.0  # over the truth's objects, see `seg`
    matched: tuple[int, ...] = (0,) * len(THRESHOLDS)  # pairs at each IoU of THRESHOLDS
    detection: Detection = field(default=Detection())

    def __add__(self, other: Score) -> Score:
        return Score(
            self.frames + other.frames,
            self.foreground.plus(other.foreground),
            self.result_objects + other.result_objects,
            self.truth_objects + other.truth_objects,
            self.jaccard_sum + other.jaccard_sum,
            tuple(map(add, self.matched, other.matched)),
            self.detection + other.detection,
        )

    @property
    def iou(self) -> float:
        """Foreground IoU."""
        return self.foreground.iou

    @property
    def dice(self) -> float:
        """Foreground Dice."""
        return self.foreground.dice

    @property
    def seg(self) -> float:
        """SEG of the Cell Tracking Challenge (Maska et al. 2014, 10.1093/bioinformatics/btu080).

        The mean over all objects R of the truth of |R & S| / |R | S|, where S is the object of
        the result with |R & S| > |R| / 2; 0 where there is none. There is never more than one.
        Objects of the result beyond the truth's cost nothing here, but in DET and F1.
        """
        return ratio(self.jaccard_sum, self.truth_objects)

    @property
    def det(self) -> float:
        """DET of the Cell Tracking Challenge, see `Detection.det`."""
        return self.detection.det

    @property
    def op_csb(self) -> float:
        """OP_CSB of the Cell Tracking Challenge: the mean of SEG and DET."""
        return (self.seg + self.det) / 2

    @property
    def f1(self) -> tuple[float, ...]:
        """F1 at each IoU of THRESHOLDS: 2 TP / (2 TP + FP + FN).

        TP is the largest number of pairs, each object in one pair at most, whose IoU reaches the
        threshold, as in stardist's matching (Schmidt et al. 2018, 10.1007/978-3-030-00934-2_30).
        """
        objects = self.result_objects + self.truth_objects
        return tuple(ratio(2 * pairs, objects) for pairs in self.matched)

    @property
    def ap(self) -> tuple[float, ...]:
        """AP at each IoU of THRESHOLDS: TP / (TP + FP + FN), with the pairs of `f1` as TP.

        The measure of the 2018 Data Science Bowl (Caicedo et al. 2019, 10.1038/s41592-019-0612-7)
        and of stardist; F1 / (2 - F1). It is not the area under a curve of precision and recall.
        """
        objects = self.result_objects + self.truth_objects
        return tuple(ratio(pairs, objects - pairs) for pairs in self.matched)

    def scores(self, classes: Sequence[LabelClass] = ()) -> dict[str, float]:
        """Every score by its name; NaN where one is not defined. Objects have no `classes`."""
        named = {"iou": self.iou, "dice": self.dice}
        named |= {"seg": self.seg, "det": self.det, "op_csb": self.op_csb}
        named |= {f"f1_{at:g}": f1 for at, f1 in zip(THRESHOLDS, self.f1, strict=True)}
        return named | {f"ap_{at:g}": ap for at, ap in zip(THRESHOLDS, self.ap, strict=True)}

    def counts(self) -> dict[str, int]:
        """What the scores are computed from, by name."""
        counts = {"objects": 0, "truth_objects": self.truth_objects} | asdict(self.detection)
        return counts | {"objects": self.result_objects} if self.frames else counts


def score(result: NDArray[Any], truth: NDArray[Any], ignore_border: int = 0) -> Score:
    """Score one frame; DET is against the truth's objects.

    Parameters
    ----------
    result, truth
        Label images of the same shape (..., Y, X), of integers; 0 is background.
    ignore_border
        Margin that is ignored along all four sides of Y and X, px.

    Raises StackError where the shapes differ or the labels are no whole numbers, and UsageError
    where the border leaves nothing to compare.
    """
    return score_overlaps(count_overlaps(*cropped(result, truth, ignore_border)))


def score_overlaps(overlaps: Overlaps) -> Score:
    """Score one frame by the areas of its overlaps; DET is against the truth's objects."""
    return Score(
        frames=1,
        foreground=Areas(
            int(overlaps.area.sum()),
            int(overlaps.result_areas.sum()),
            int(overlaps.truth_areas.sum()),
        ),
        result_objects=len(overlaps.result_areas),
        truth_objects=len(overlaps.truth_areas),
        jaccard_sum=math.fsum(overlaps.iou[overlaps.covering]),  # the same in any order of objects
        matched=tuple(_matched(overlaps, at) for at in THRESHOLDS),
        detection=_detection(overlaps),
    )


def detect(result: NDArray[Any], markers: NDArray[Any], ignore_border: int = 0) -> Detection:
    """Compare a frame with markers, as `score` does with whole objects; same parameters."""
    return _detection(count_overlaps(*cropped(result, markers, ignore_border)))


def _detection(overlaps: Overlaps) -> Detection:
    finders = overlaps.result[overlaps.covering]
    objects, markers = len(overlaps.result_areas), len(overlaps.truth_areas)
    finding = len(np.unique(finders))
    return Detection(
        objects=objects,
        markers=markers,
        missed=markers - len(finders),
        splits=len(finders) - finding,
        spurious=objects - finding,
    )


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
