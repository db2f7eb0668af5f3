"""Open labels: numbered frames, and a way to read each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError, StackError
from engine.results.planes import Number, Planes
from engine.results.result import LabelClass
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
    pixel_size_um: Mapping[str, float] = field(default_factory=dict)  # by axis, where known

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
            return stacked([self.read(n) for n in numbers], self.path)
        return pieces(stacked([self._named(n, mask, self.load(n)) for n in numbers], self.path))

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


def stacked(planes: Sequence[NDArray[Any]], where: str) -> NDArray[Any]:
    """One plane as it is, several as (Z, Y, X); StackError where their shapes differ."""
    if len(shapes := {plane.shape for plane in planes}) > 1:
        listed = " and ".join(map(str, sorted(shapes)))
        raise StackError(
            f"{where}: has frames of the shapes {listed}, which are no volume; omit --volumes"
        )
    return planes[0] if len(planes) == 1 else np.stack(planes)


def plane_frames(planes: Planes) -> LabelFrames:
    """Planes as frames; those of a stack without T are numbered like frames."""
    is_volume = "Z" in planes.axes and "T" not in planes.axes
    places = {(z, 0) if is_volume else (t, z): (t, z) for t, z in planes.numbers}

    def load(number: Number) -> LabelImage:
        try:
            return LabelImage(planes.read(*places[number]))
        except FrameError as error:
            raise StackError(str(error)) from error

    return LabelFrames(str(planes.where), tuple(places), load, planes=is_volume)
