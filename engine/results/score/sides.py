"""A result and its truth, frame by frame: arrays of both, and their score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import StackError, UsageError
from engine.results.planes import Number
from engine.results.result import LabelClass
from engine.results.score.classes import ClassScore, class_numbers, class_pixels, score_classes
from engine.results.score.frames import LabelFrames, stacked
from engine.results.score.match import Pair
from engine.results.score.metrics import Detection, Score, detect, score
from engine.results.score.overlaps import cropped
from engine.results.score.scale import Scale
from engine.results.score.sources import Truth
from engine.truth.ids import InPieces, in_pieces
from engine.truth.image import LabelImage

Scored = Score | ClassScore
Watch = Callable[[NDArray[Any], NDArray[Any]], None]  # gets what is scored, result and truth


@dataclass(frozen=True)
class Sides:
    """The two sides of a stack's comparison. One pair is read as (Y, X), several as (Z, Y, X)."""

    ours: LabelFrames
    truth: Truth
    classes: tuple[LabelClass, ...] | None  # of class maps, none where unknown; None: of objects
    masks: bool = False  # the truth is of masks, whose pieces are the objects
    scale: Scale = field(default_factory=Scale)

    def arrays(
        self, pairs: Sequence[Pair], *, markers: bool = False
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Result and truth: class numbers or labels, with `markers` those of the markers."""
        if self.classes is not None:
            return self._classes_of(pairs)
        truth = self.truth.markers if markers else self.truth.labels
        numbers = [pair.markers if markers else pair.labels for pair in pairs]
        assert truth is not None
        ours = [pair.ours for pair in pairs]
        theirs = truth.read_all(
            [n for n in numbers if n is not None], masks=self.masks and not markers
        )
        if self.ours.failed.isdisjoint(ours):
            masks = self.masks and self.ours.load(ours[0]).pixels.dtype == np.bool_
            return self.ours.read_all(ours, masks=masks), theirs
        planes = theirs.reshape(-1, *theirs.shape[-2:])
        labels = [self._labels(n, plane) for n, plane in zip(ours, planes, strict=True)]
        return stacked(labels, self.ours.path), theirs

    def _labels(self, number: Number, truth: NDArray[Any]) -> NDArray[Any]:
        """A frame of a job's labels; of one that was set aside 0, in the shape of its truth."""
        if number in self.ours.failed:
            return np.zeros(truth.shape, np.uint8)
        return self.ours.read(number)

    def _classes_of(self, pairs: Sequence[Pair]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Class numbers of the result and of the truth."""
        assert self.truth.labels is not None
        ours, theirs = [], []
        for pair in pairs:
            assert pair.labels is not None
            images = self.ours.load(pair.ours), self.truth.labels.load(pair.labels)
            where = self.ours.where(pair.ours), self.truth.labels.where(pair.labels)
            if self.classes:
                pixels = [class_pixels(image, self.classes) for image in images]
            elif _by_colour(*images):
                pixels = [c for image in images if (c := image.coloured()) is not None]
            elif images[0].is_picture or images[1].is_picture:
                raise StackError(
                    f"{where[0]} and {where[1]}: one has colours, the other numbers, and nothing "
                    "says which class has which colour; a result of a model with classes does"
                )
            else:
                pixels = [image.pixels for image in images]
            theirs.append(class_numbers(pixels[1], self.classes or (), where[1]))
            if pair.ours in self.ours.failed:  # its image may have had another shape
                ours.append(np.zeros_like(theirs[-1]))
            else:
                ours.append(class_numbers(pixels[0], self.classes or (), where[0]))
        return stacked(ours, self.ours.path), stacked(theirs, self.truth.path)

    def score(
        self, pairs: Sequence[Pair], border: int, watch: Watch | None = None
    ) -> tuple[Scored, InPieces | None]:
        """The score of frames as one, and what shows that the truth may hold no objects.

        `watch` gets the class numbers that were scored, without the border.
        """
        with_labels = [p for p in pairs if p.labels is not None]
        with_markers = [p for p in pairs if p.markers is not None]
        scored, apart = Score(), None
        if with_labels:
            ours, theirs = self.arrays(with_labels)
            with self._named(with_labels[0]):
                if self.classes is not None:
                    found = score_classes(ours, theirs, self.classes, border, self.scale)
                    if watch is not None:
                        watch(*cropped(ours, theirs, border))
                    return found, None
                scored = score(ours, theirs, border)
            apart = self._in_pieces(with_labels[0], ours, theirs)
        if self.truth.markers is not None:
            scored = replace(scored, detection=Detection())
        if with_markers:
            ours, theirs = self.arrays(with_markers, markers=True)
            with self._named(with_markers[0]):
                scored = replace(scored, detection=detect(ours, theirs, border))
        return scored, apart

    @contextmanager
    def _named(self, pair: Pair) -> Iterator[None]:
        """Names the frame that cannot be scored."""
        try:
            yield
        except StackError as error:
            name = f" ({pair.name})" if pair.name else ""
            raise StackError(f"{self.ours.path}: frame {pair.number[0]}{name}: {error}") from None

    def _in_pieces(self, pair: Pair, ours: NDArray[Any], theirs: NDArray[Any]) -> InPieces | None:
        """What shows that the truth may hold no objects; StackError where a side is an image."""
        assert self.truth.labels is not None
        for found, where in (
            (in_pieces(ours), self.ours.where(pair.ours)),
            (apart := in_pieces(theirs), self.truth.labels.where(pair.labels or pair.number)),
        ):
            if found is not None and found.is_image:
                raise StackError(found.hint(where))
        return apart

    @property
    def planes(self) -> bool:
        """Whether frames are the planes of one volume."""
        return self.ours.planes or (self.truth.labels is not None and self.truth.labels.planes)

    @property
    def is_deep(self) -> bool:
        """Whether a time point has several planes."""
        return self.planes or any(z for _, z in self.ours.numbers)

    @property
    def pixel_size_um(self) -> Mapping[str, float]:
        """Sizes of voxels by axis, as the metadata of either side have them."""
        theirs = self.truth.labels.pixel_size_um if self.truth.labels else {}
        return self.ours.pixel_size_um or theirs

    @property
    def kind(self) -> str:
        """What is scored, in words: objects, or which classes."""
        if self.classes is None:
            return "objects"
        named = ", ".join(f"{c.value} {c.name}" for c in self.classes)
        return f"the classes {named}" if named else "classes that nothing names"

    def is_coloured(self) -> bool:
        """Whether classes that nothing names are colours, not numbers."""
        assert self.truth.labels is not None
        first = self.truth.labels.numbers[0]
        return _by_colour(self.ours.load(self.ours.numbers[0]), self.truth.labels.load(first))


def _by_colour(ours: LabelImage, theirs: LabelImage) -> bool:
    """Whether both have colours. The indices of one mean what the other's numbers do."""
    return all(image.is_picture or image.palette is not None for image in (ours, theirs))


def known_classes(ours: LabelFrames, truth: Truth, given: bool) -> tuple[LabelClass, ...] | None:
    """The classes that the metadata of either name; none where it is only `given` that there are.

    None where both are of objects. Raises UsageError where the two name different classes.
    """
    theirs = truth.labels.classes if truth.labels else ()
    if ours.classes and theirs:
        names = [[(c.value, c.name) for c in side] for side in (ours.classes, theirs)]
        if names[0] != names[1]:
            lists = [", ".join(f"{value} {name}" for value, name in side) for side in names]
            raise UsageError(
                f"{ours.path} has the classes {lists[0]}, but {truth.path} {lists[1]}; "
                "they cannot be compared"
            )
    if truth.palette and ours.origin is not None and not ours.classes:
        raise UsageError(
            f"{ours.path}: is of objects, not of classes, and --palette says which colours are "
            "classes; omit it, and give --masks where the truth is foreground"
        )
    classes = ours.classes or theirs
    if (classes or given) and truth.labels is None:
        raise UsageError(f"{truth.path}: has markers alone, and a class map has no objects")
    return classes if classes or given else None
