"""Whether a faster setting of the network gives the labels of float32.

Lower precision moves probabilities a little, everywhere. What matters is what becomes of the
objects: how many of them are the same, at an IoU of 0.9 at least. Of class maps, whose labels are
no objects, it is the pixels of each class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.geometry.tiling import FrameTiling
from engine.inference.tiles import predict
from engine.labels.classes import class_map, masks
from engine.labels.instances import label_instances
from engine.labels.overlaps import overlaps_of
from engine.labels.postprocessing import Postprocessing
from engine.model.file import ModelFile
from engine.runtimes.base import Floats, Pixels, Session, Target
from engine.runtimes.registry import open_session, runtime_of

SAME = 0.9  # IoU from which an object counts as the same one
GATE = 0.99  # F1 from which labels agree

Labels = NDArray[Any]  # (Y, X): ids of objects, or classes


@dataclass(frozen=True)
class Look:
    """A frame, or the middle of a large one, that is segmented in several ways."""

    pixels: Pixels  # raw, (C, Y, X): the channels that the network takes
    statistics: Floats  # (C, 2)
    tiling: FrameTiling
    postprocessing: Postprocessing

    @property
    def dtype(self) -> str:
        """Type of its pixels."""
        return str(self.pixels.dtype)

    def labels(self, session: Session, n_classes: int) -> Labels:
        """Its labels (Y, X); `n_classes` of the session's outputs are for classes."""
        probability = predict(self.pixels, self.statistics, self.tiling, session)
        if self.postprocessing.gives_classes:
            return class_map(probability[:n_classes], self.postprocessing.threshold)
        mask, core = masks(probability, self.postprocessing)
        return label_instances(mask, self.postprocessing, core)


def label_all(
    model: ModelFile, target: Target, looks: Sequence[Look], threads: int
) -> list[Labels]:
    """Labels of several frames by a resolved target."""
    sessions = {
        dtype: open_session(model, dtype, target, threads)
        for dtype in dict.fromkeys(look.dtype for look in looks)
    }
    found = [look.labels(sessions[look.dtype], model.spec.n_class_outputs) for look in looks]
    # What is kept for the next run is not in the job's plan.
    runtime_of(target.runtime).release_memory()
    return found


class Counts(NamedTuple):
    """Objects, or pixels of a class."""

    both: int = 0
    found: int = 0
    wanted: int = 0


@dataclass(frozen=True)
class Agreement:
    """How labels agree with those that are wanted; the sum of two is that of all their frames."""

    pixels: int = 0
    changed: int = 0  # pixels that are another class's, or no longer the same object's
    counts: Mapping[int, Counts] = field(default_factory=dict)  # by class; 0: of objects

    def __add__(self, other: Agreement) -> Agreement:
        none = Counts()
        return Agreement(
            self.pixels + other.pixels,
            self.changed + other.changed,
            {
                kind: Counts(*map(add, self.counts.get(kind, none), other.counts.get(kind, none)))
                for kind in sorted(self.counts.keys() | other.counts.keys())
            },
        )

    @property
    def f1(self) -> float | None:
        """F1, 2 both / (found + wanted), of the class where it is least; None: nothing is there."""
        scores = [
            2 * one.both / (one.found + one.wanted)
            for one in self.counts.values()
            if one.found + one.wanted
        ]
        return min(scores, default=None)

    @property
    def changed_fraction(self) -> float:
        """Share of the pixels that have changed, 0..1."""
        return self.changed / max(self.pixels, 1)

    @property
    def objects(self) -> int:
        """Objects that are wanted; of class maps none."""
        return self.counts.get(0, Counts()).wanted


def compare(found: Labels, wanted: Labels, *, instances: bool) -> Agreement:
    """How the labels of a frame agree with those that are wanted, (Y, X) both.

    Objects are the same from an IoU of SAME on. An object's pixel has not changed where it is of
    the object that shares most with it, at an IoU of more than one half.
    """
    if not instances:
        classes = (int(one) for one in np.union1d(found, wanted) if one)
        counts = {one: _pixels(found == one, wanted == one) for one in classes}
        return Agreement(found.size, int((found != wanted).sum()), counts)
    overlaps = overlaps_of(found, wanted)
    n_found, n_wanted = len(overlaps.result_areas), len(overlaps.truth_areas)
    partners = overlaps.iou > 0.5  # of which an object has one at most
    either = overlaps.result_areas.sum() + overlaps.truth_areas.sum() - overlaps.area.sum()
    same = int(np.count_nonzero(overlaps.iou >= SAME))
    return Agreement(
        found.size,
        int(either - overlaps.area[partners].sum()),
        {0: Counts(same, n_found, n_wanted)} if n_found + n_wanted else {},
    )


def compare_all(
    found: Iterable[Labels], wanted: Iterable[Labels], looks: Sequence[Look]
) -> Agreement:
    """How the labels of several frames agree, as `compare` has it: in order, those of each look."""
    pairs = zip(found, wanted, looks, strict=True)
    return sum(
        (compare(a, b, instances=not look.postprocessing.gives_classes) for a, b, look in pairs),
        start=Agreement(),
    )


def _pixels(found: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> Counts:
    return Counts(int((found & wanted).sum()), int(found.sum()), int(wanted.sum()))
