"""Open labels: numbered frames, and a way to read each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import StackError, first_line
from engine.results.planes import Number
from engine.results.result import LabelClass
from engine.stacks.zarr.chunks import StoredArray
from engine.truth.ids import mask, object_ids, pieces
from engine.truth.image import LabelImage

if TYPE_CHECKING:
    from engine.results.score.origin import Origin


@dataclass(frozen=True)
class LabelFrames:
    """Numbered label frames and a way to read each."""

    path: str
    numbers: tuple[Number, ...]  # sorted (t, z); (z, 0) where the stack has no T
    load: Callable[[Number], LabelImage]
    names: Mapping[Number, str] = field(default_factory=dict)  # file that a frame is, or came from
    by_order: bool = False  # the files' names do not number them: they are counted
    classes: tuple[LabelClass, ...] = ()  # of a class map whose metadata name them
    origin: Origin | None = None  # of a result
    planes: bool = False  # frames are the planes of one volume: the numbers are Z's, not T's

    def read(self, number: Number) -> NDArray[Any]:
        """One frame of labels, (Y, X), as whole numbers; StackError where it has none."""
        image = self.load(number)
        if not image.is_grey:
            raise StackError(
                f"{self.where(number)}: is a colour picture, not a label image; if its colours are "
                "classes, the result has to be a class map, or give --classes"
            )
        return self._named(number, object_ids, image)

    def read_all(self, numbers: Sequence[Number], *, masks: bool = False) -> NDArray[Any]:
        """A frame of labels (Y, X), or several as (Z, Y, X).

        With `masks`, labels are the connected pieces of the frames' foreground. StackError where
        a frame has no labels, or is no mask.
        """
        if not masks:
            return stacked([self.read(n) for n in numbers])
        return pieces(stacked([self._named(n, mask, self.load(n)) for n in numbers]))

    def _named(
        self, number: Number, read: Callable[[LabelImage], NDArray[Any]], image: LabelImage
    ) -> NDArray[Any]:
        try:
            return read(image)
        except StackError as error:
            raise StackError(f"{self.where(number)}: {error}") from None

    @property
    def failed(self) -> frozenset[Number]:
        """Frames that the job set aside: it has no labels there."""
        failed = self.origin.failed if self.origin else frozenset()
        return frozenset((z, 0) for _, z in failed) if self.planes else failed

    def where(self, number: Number) -> str:
        """What to call a frame in an error."""
        name = self.names.get(number, f"frame {number[0]}")
        return self.path if Path(self.path).name == name else f"{self.path}: {name}"


def stacked(planes: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """One plane as it is, several as (Z, Y, X)."""
    return planes[0] if len(planes) == 1 else np.stack(planes)


def array_frames(
    path: Path,
    stored: StoredArray,
    axes: str,
    first: Number = (0, 0),
    *,
    all_written: bool,
) -> LabelFrames:
    """Frames of an array, by T and Z; an axis of unknown meaning counts as T.

    With `all_written`, every file of the array was written, even where empty: a missing one is
    lost, not background.
    """
    array, shape = stored.array, stored.array.shape
    if len(axes) != array.ndim or axes[-2:] != "YX":
        raise StackError(f"{path}: labels need axes that end in YX, not {axes} of {shape}")
    lengths = list(zip(axes, shape, strict=True))[:-2]
    letters = ["T" if a not in "TCZ" and n > 1 else a for a, n in lengths]
    sizes = {a: n for a, n in reversed(list(zip(letters, shape, strict=False))) if a in "TZ"}
    if math.prod(sizes.values()) != math.prod(shape[:-2]):
        raise StackError(
            f"{path}: labels have the axes T, Z, Y and X, not {axes} of the shape {shape}"
        )
    planes = sizes.keys() == {"Z"}  # they are numbered like frames
    along, across = ("Z", "") if planes else ("T", "Z")
    t0, z0 = (first[1], 0) if planes else first

    def load(number: Number) -> LabelImage:
        at = {along: number[0] - t0, across: number[1] - z0}
        index: list[int | slice] = [at.get(letter, 0) for letter in letters] + [slice(None)] * 2
        if all_written and (lost := stored.lost_file(index)):
            raise StackError(f"{lost}: is gone; `stackseg verify` names all that is lost")
        try:
            return LabelImage(np.asarray(array[tuple(index)]))
        except Exception as error:
            raise StackError(
                f"{path}: frame {number[0]} cannot be read ({first_line(error)})"
            ) from error

    ts, zs = (range(n, n + sizes.get(a, 1)) for n, a in ((t0, along), (z0, across)))
    numbers = tuple((t, z) for t in ts for z in zs)
    return LabelFrames(str(path), numbers, load, planes=planes)
