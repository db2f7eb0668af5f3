"""Scores of class maps: Dice and IoU of each class, as sums that can be pooled over frames.

A frame of a class map is an image of class numbers, or a picture whose colours are the classes,
as many truths are kept. A number for each pixel comes out of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import StackError
from engine.results.result import LabelClass
from engine.results.score.overlaps import NONE, Areas, cropped
from engine.truth.image import LabelImage

MOST_CLASSES = 1024  # more different values than this are ids of objects


@dataclass(frozen=True)
class ClassScore:
    """What one frame adds to the scores of classes; the sum of two is both frames pooled.

    A score that would be 0 / 0, of a class that neither has, is NaN.
    """

    frames: int = 0
    foreground: Areas = NONE  # of all classes but 0 as one
    areas: Mapping[int, Areas] = field(default_factory=dict)  # by class, without 0

    def __add__(self, other: ClassScore) -> ClassScore:
        values = sorted(self.areas.keys() | other.areas.keys())
        return ClassScore(
            self.frames + other.frames,
            self.foreground.plus(other.foreground),
            {value: self._areas(value).plus(other._areas(value)) for value in values},
        )

    def _areas(self, value: int) -> Areas:
        return self.areas.get(value, NONE)

    @property
    def dice(self) -> float:
        """Foreground Dice, whichever the class."""
        return self.foreground.dice

    def class_dice(self, value: int) -> float:
        """Dice of one class."""
        return self._areas(value).dice

    def class_iou(self, value: int) -> float:
        """IoU of one class."""
        return self._areas(value).iou

    @property
    def mean_dice(self) -> float:
        """Mean Dice of the classes that result or truth have, without background."""
        return mean([areas.dice for areas in self.areas.values()])

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the classes that result or truth have, without background."""
        return mean([areas.iou for areas in self.areas.values()])

    def scores(self, classes: Sequence[LabelClass]) -> dict[str, float]:
        """Every score by its name, those of `classes` by theirs; NaN where one is not defined."""
        named = {"iou": self.foreground.iou, "dice": self.foreground.dice}
        named |= {"mean_dice": self.mean_dice, "mean_iou": self.mean_iou}
        named |= {f"dice_{c.name}": self.class_dice(c.value) for c in classes}
        return named | {f"iou_{c.name}": self.class_iou(c.value) for c in classes}

    def counts(self) -> dict[str, int]:
        """Counts of objects: none."""
        return {}


def mean(values: Sequence[float]) -> float:
    """Mean of the values that are defined; NaN where none is."""
    defined = [v for v in values if v == v]
    return sum(defined) / len(defined) if defined else float("nan")


def score_classes(
    result: NDArray[Any],
    truth: NDArray[Any],
    classes: Sequence[LabelClass] = (),
    ignore_border: int = 0,
) -> ClassScore:
    """Score one frame of a class map.

    Parameters
    ----------
    result, truth
        Class numbers of the same shape (..., Y, X), see `class_numbers`.
    classes
        All classes there are, if that is known: those that neither image has are counted, too.
    ignore_border
        Margin that is ignored along all four sides of Y and X, px.

    Raises StackError where the shapes differ or the values are too many for classes.
    """
    ours, theirs = (image.ravel() for image in cropped(result, truth, ignore_border))
    a, b = ours != 0, theirs != 0
    values, dense = np.unique(np.concatenate([ours, theirs]), return_inverse=True)
    n = len(values)
    if n > MOST_CLASSES:
        raise StackError(f"{n:,} different values are ids of objects, not classes")
    # Rows are the result's classes, columns the truth's.
    confusion = np.bincount(dense[: ours.size] * n + dense[ours.size :], minlength=n * n)
    confusion = confusion.reshape(n, n)
    rows, columns, both = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    areas = {c.value: NONE for c in classes}
    counts = (one.tolist() for one in (both, rows, columns))
    areas |= zip(values.tolist(), map(Areas, *counts), strict=True)
    areas.pop(0, None)
    foreground = Areas(int((a & b).sum()), int(a.sum()), int(b.sum()))
    return ClassScore(1, foreground, dict(sorted(areas.items())))


def class_pixels(image: LabelImage, classes: Sequence[LabelClass]) -> NDArray[Any]:
    """The pixels of an image in which its classes are to be looked up, for `class_numbers`.

    Of an indexed image these are its colours where all that it uses are colours of `classes`, and
    its indices elsewhere: an index is the class in some files, an accident of packing in others.
    """
    coloured = image.coloured()
    if coloured is None or image.is_picture:
        return image.pixels
    assert image.palette is not None
    used = np.unique(image.pixels)
    colours = {tuple(image.palette[i]) if i < len(image.palette) else None for i in used}
    return coloured if colours <= {c.rgb for c in classes} else image.pixels


def class_numbers(frame: NDArray[Any], classes: Sequence[LabelClass], where: str) -> NDArray[Any]:
    """The class of each pixel, of an image of class numbers or of a picture of their colours.

    Parameters
    ----------
    frame
        (Y, X) of whole numbers, or (Y, X, 3 or more) of 8 bits: red, green, blue.
    classes
        All there are. Where none are given, any number is valid, and a colour becomes the number
        0xRRGGBB.
    where
        What to name in an error.

    Raises StackError where a number or colour is not among `classes`.
    """
    if frame.ndim == 2:
        if frame.dtype.kind not in "iub":
            raise StackError(f"{where}: classes must be whole numbers, not {frame.dtype.name}")
        pixels, what, known = frame, "value {}", {c.value: c.value for c in classes}
    else:
        if frame.dtype != np.uint8:
            raise StackError(
                f"{where}: colours of classes must have 8 bits, not {frame.dtype.name}"
            )
        red, green, blue = (frame[..., i].astype(np.int64) for i in range(3))
        pixels, what = red << 16 | green << 8 | blue, "colour #{:06x}"
        known = {_number(c.rgb): c.value for c in classes}
    if not classes:
        return pixels
    values, at = np.unique(pixels, return_inverse=True)
    for value in map(int, values):
        if value not in known:
            names = ", ".join(f"{c.name} {c.value} #{_number(c.rgb):06x}" for c in classes)
            raise StackError(
                f"{where}: has the {what.format(value)}, which is none of the classes ({names})"
            )
    return np.array([known[int(v)] for v in values], np.int64)[at].reshape(pixels.shape)


def _number(rgb: tuple[int, int, int]) -> int:
    """0xRRGGBB."""
    return int.from_bytes(bytes(rgb))
