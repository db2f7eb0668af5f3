"""The planes of an OME-Zarr image of a result: labels, probabilities, or what is drawn of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError, StackError, first_line
from engine.stacks.axes import UNKNOWN
from engine.stacks.base import WINDOW_PIXELS
from engine.stacks.guard import opening
from engine.stacks.zarr import ngff
from engine.stacks.zarr.chunks import StoredArray
from engine.stacks.zarr.metadata import read_node
from engine.stacks.zarr.stack import open_array

Number = tuple[int, int]  # (t, z) of a plane, in the stack's own numbering


@dataclass(frozen=True)
class Planes:
    """The planes of an array, or of an OME-Zarr image and its levels, by the stack's numbers."""

    where: Path
    axes: str  # of TCZYX; an axis of another meaning is of length 1
    levels: tuple[StoredArray, ...]  # the full size first
    first: Number = (0, 0)  # (t, z) of the first plane
    pixel_size_um: Mapping[str, float] = field(default_factory=dict)  # by axis, where it is known
    time_step_s: float | None = None
    all_written: bool = True  # every file, be it empty or not: one that is not there is lost

    def size(self, axis: str, level: int = 0) -> int:
        """Length of an axis, 1 where there is none."""
        shape = self.levels[level].array.shape
        return int(shape[self.axes.index(axis)]) if axis in self.axes else 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return np.dtype(self.levels[0].array.dtype)

    @property
    def ts(self) -> range:
        """Time points."""
        return range(self.first[0], self.first[0] + self.size("T"))

    @property
    def zs(self) -> range:
        """Planes."""
        return range(self.first[1], self.first[1] + self.size("Z"))

    @property
    def numbers(self) -> Iterator[Number]:
        """(t, z) of every plane, in order."""
        return ((t, z) for t in self.ts for z in self.zs)

    def level_for(self, shape: tuple[int, int]) -> int:
        """The smallest level of at least `shape`, (Y, X): enough to be drawn at that size."""
        fitting = [
            n for n in range(len(self.levels))
            if self.size("Y", n) >= shape[0] and self.size("X", n) >= shape[1]
        ]  # fmt: skip
        return fitting[-1] if fitting else 0

    def read(
        self, t: int, z: int, rows: slice = slice(None), c: int = 0, level: int = 0
    ) -> NDArray[Any]:
        """Rows of a plane, (y, X); FrameError where they cannot be read."""
        at: dict[str, int | slice] = {"T": t - self.first[0], "Z": z - self.first[1], "C": c}
        at |= {"Y": rows, "X": slice(None)}
        index = tuple(at.get(axis, 0) for axis in self.axes)
        stored = self.levels[level]
        lost = stored.lost_file(index) if self.all_written else None
        if lost is not None:  # of which Zarr would give zeros
            raise FrameError(
                f"{lost}: is gone, and t={t} z={z} would pass for background there; `stackseg "
                "verify` names all that is lost"
            )
        try:
            return np.asarray(stored.array[index])
        except Exception as error:  # zarr and its codecs raise what they like
            what = first_line(error)
            raise FrameError(f"{self.where}: t={t} z={z} cannot be read ({what})") from error

    def bands(self, level: int = 0) -> Iterator[slice]:
        """Rows to be read together, whole chunks of about 4 million pixels."""
        array = self.levels[level].array
        height, chunk = self.size("Y", level), array.chunks[self.axes.index("Y")]
        step = max(WINDOW_PIXELS // max(self.size("X", level) * chunk, 1), 1) * chunk
        return (slice(y, min(y + step, height)) for y in range(0, height, step))


def open_planes(where: Path) -> Planes:
    """The OME-Zarr image at `where`; StackError where it is none."""
    image = ngff.image(str(where), read_node(where))
    with opening(str(where)):
        levels = tuple(open_array(str(folder), folder) for folder in image.levels)
    axes = image.letters(len(image.names))
    if (
        any(level.array.ndim != len(axes) for level in levels)
        or not axes.endswith("YX")
        or UNKNOWN in axes
    ):
        raise StackError(f"{where}: has the axes {axes}, which do not fit its arrays")
    first, sizes = image.first_frame(), image.pixel_size_um
    return Planes(where, axes, levels, first, sizes, image.time_step_s)
