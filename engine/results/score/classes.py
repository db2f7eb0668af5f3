"""Scores of class maps by class: Dice, IoU, Hausdorff distance and volume, pooled over frames.

A frame of a class map is an image of class numbers, or a picture whose colours are the classes,
as many truths are kept. A number for each pixel comes out of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import add
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import StackError
from engine.results.result import LabelClass
from engine.results.score.overlaps import NONE, Areas, cropped, ratio
from engine.results.score.scale import Scale
from engine.results.score.surfaces import SurfaceDistances, Volume, plane_distances
from engine.truth.image import LabelImage

NAN = float("nan")
MOST_CLASSES = 1024  # more different values than this are ids of objects


class Size(NamedTuple):
    """Volumes of a class, in the unit of its `Scale`."""

    result: float = 0.0
    truth: float = 0.0


@dataclass(frozen=True)
class ClassScore:
    """What one frame adds to the scores of classes; the sum of two is both frames pooled.

    A score that would be 0 / 0, of a class that neither has, is NaN. Mappings are by class,
    without 0.
    """

    frames: int = 0
    foreground: Areas = NONE  # of all classes but 0 as one
    areas: Mapping[int, Areas] = field(default_factory=dict)
    sizes: Mapping[int, Size] = field(default_factory=dict)
    distances: Mapping[int, SurfaceDistances] = field(default_factory=dict)

    def __add__(self, other: ClassScore) -> ClassScore:
        values = sorted(self.areas.keys() | other.areas.keys())
        return ClassScore(
            self.frames + other.frames,
            self.foreground.plus(other.foreground),
            {value: self._areas(value).plus(other._areas(value)) for value in values},
            {value: Size(*map(add, self._size(value), other._size(value))) for value in values},
            distances_together(self.distances, other.distances),
        )

    def with_distances(self, distances: Mapping[int, SurfaceDistances]) -> ClassScore:
        """The same with other distances, as those of whole volumes."""
        return replace(self, distances=distances)

    def _areas(self, value: int) -> Areas:
        return self.areas.get(value, NONE)

    def _size(self, value: int) -> Size:
        return self.sizes.get(value, Size())

    def is_absent(self, value: int) -> bool:
        """Whether neither side has a class: nothing of it is scored."""
        areas = self._areas(value)
        return areas.result == areas.truth == 0

    def one_sided(self, value: int) -> int:
        """Frames or volumes without distances, since only one side has the class."""
        distances = self.distances.get(value)
        return distances.one_sided if distances else 0

    def hd95(self, value: int) -> float:
        """95 % Hausdorff distance of one class, in the unit of its `Scale`."""
        distances = self.distances.get(value)
        return distances.hd95 if distances else NAN

    def volumes(self, value: int) -> dict[str, float]:
        """Volumes of one class and their differences: result less truth, in percent of the truth.

        All are NaN where neither side has the class, percents where the truth lacks it.
        """
        size = Size(NAN, NAN) if self.is_absent(value) else self._size(value)
        error = size.result - size.truth
        percent = 100 * ratio(error, size.truth)
        return {
            "volume": size.result,
            "truth_volume": size.truth,
            "volume_error": error,
            "volume_error_percent": percent,
            "absolute_volume_error_percent": abs(percent),
        }

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
        for c in classes:
            named |= {f"{score}_{c.name}": v for score, v in self.class_scores(c.value).items()}
        return named

    def class_scores(self, value: int) -> dict[str, float]:
        """Every score of one class by its name."""
        overlap = {"dice": self.class_dice(value), "iou": self.class_iou(value)}
        return overlap | {"hd95": self.hd95(value)} | self.volumes(value)

    def counts(self) -> dict[str, int]:
        """Counts of objects: none."""
        return {}


def distances_together(
    one: Mapping[int, SurfaceDistances], other: Mapping[int, SurfaceDistances]
) -> dict[int, SurfaceDistances]:
    """The distances of two frames or volumes, by class."""
    none = SurfaceDistances()
    return {v: one.get(v, none).plus(other.get(v, none)) for v in sorted(one.keys() | other.keys())}


def mean(values: Sequence[float]) -> float:
    """Mean of the values that are defined; NaN where none is."""
    defined = [v for v in values if v == v]
    return sum(defined) / len(defined) if defined else float("nan")


def score_classes(
    result: NDArray[Any],
    truth: NDArray[Any],
    classes: Sequence[LabelClass] = (),
    ignore_border: int = 0,
    scale: Scale | None = None,
) -> ClassScore:
    """Score one frame of a class map, or the planes of a volume as one.

    Parameters
    ----------
    result, truth
        Class numbers of the same shape (..., Y, X), see `class_numbers`.
    classes
        All classes there are, if that is known: those that neither image has are counted, too.
    ignore_border
        Margin that is ignored along all four sides of Y and X, px.
    scale
        Sizes of voxels and units; None: pixels. Distances of planes are within each, unless the
        scale knows the distance from plane to plane.

    Raises StackError where the shapes differ or the values are too many for classes.
    """
    scale = scale or Scale()
    result, truth = cropped(result, truth, ignore_border)
    ours, theirs = result.ravel(), truth.ravel()
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
    areas = dict(sorted(areas.items()))
    sizes = {v: Size(one.result * scale.voxel, one.truth * scale.voxel) for v, one in areas.items()}
    return ClassScore(1, foreground, areas, sizes, _distances(result, truth, list(areas), scale))


def _distances(
    result: NDArray[Any], truth: NDArray[Any], values: Sequence[int], scale: Scale
) -> Mapping[int, SurfaceDistances]:
    planes = [(side[None] if side.ndim == 2 else side) for side in (result, truth)]
    if scale.depth is not None and len(planes[0]) > 1:
        volume = Volume(scale.solid)
        for z, (ours, theirs) in enumerate(zip(*planes, strict=True)):
            volume.add(z, ours, theirs)
        return volume.distances()
    found: dict[int, SurfaceDistances] = {}
    for ours, theirs in zip(*planes, strict=True):
        of_plane = {v: plane_distances(ours, theirs, v, scale.plane) for v in values}
        found = distances_together(found, of_plane)
    return found


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
