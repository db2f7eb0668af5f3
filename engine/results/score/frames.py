"""What labels are once they are open: numbered frames, and a way to read each."""

from __future__ import annotations

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
    origin: Origin | None = None  # of a result: what it was made from
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

    Where every file of the array was written, be it empty or not, one that is not there is lost,
    and is no background.
    """
    array = stored.array
    if len(axes) != array.ndim or axes[-2:] != "YX":
        raise StackError(f"{path}: labels need axes that end in YX, not {axes} of {array.shape}")
    meaning = [
        "T" if a not in "TCZ" and n > 1 else a for a, n in zip(axes, array.shape, strict=True)
    ]
    t_axis, z_axis = (meaning[:-2].index(a) if a in meaning[:-2] else None for a in "TZ")
    if any(array.shape[i] > 1 for i in range(array.ndim - 2) if i not in (t_axis, z_axis)):
        raise StackError(
            f"{path}: labels have the axes T, Z, Y and X, not {axes} of the shape {array.shape}"
        )
    t0, z0 = first
    planes = t_axis is None and z_axis is not None
    if planes:  # numbered like frames
        t_axis, z_axis, t0, z0 = z_axis, None, z0, 0
    n_t, n_z = (1 if i is None else array.shape[i] for i in (t_axis, z_axis))

    def load(number: Number) -> LabelImage:
        index: list[int | slice] = [0] * (array.ndim - 2) + [slice(None)] * 2
        for axis, at in ((t_axis, number[0] - t0), (z_axis, number[1] - z0)):
            if axis is not None:
                index[axis] = at
        if all_written and (lost := stored.lost_file(index)):
            raise StackError(f"{lost}: is gone; `stackseg verify` names all that is lost")
        try:
            return LabelImage(np.asarray(array[tuple(index)]))
        except Exception as error:
            raise StackError(
                f"{path}: frame {number[0]} cannot be read ({first_line(error)})"
            ) from error

    numbers = tuple((t0 + t, z0 + z) for t in range(n_t) for z in range(n_z))
    return LabelFrames(str(path), numbers, load, planes=planes)
