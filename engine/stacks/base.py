"""What a stack is to the rest of the engine: named axes, a shape, a dtype, and frames to read.

A reader may hold its pixels in any order of axes. It says so once, in its *source axes*, and
everybody else sees the canonical order T, C, Z, Y, X with the absent axes left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import StackError

CANONICAL = "TCZYX"

READ_AS = {
    # Pixels travel to the runtime as one of these four. What is narrower is widened without
    # loss; 32-bit integers and float64 become float32, the precision of the network.
    "bool": "uint8",
    "uint8": "uint8",
    "int8": "int16",
    "uint16": "uint16",
    "int16": "int16",
    "float16": "float32",
    "float32": "float32",
    "float64": "float32",
    "uint32": "float32",
    "int32": "float32",
    "uint64": "float32",
    "int64": "float32",
}


@dataclass(frozen=True)
class StackInfo:
    """What is known of a stack without reading a pixel. Plain data: pickles, prints, compares."""

    path: str  # as the user gave it
    format: str  # "TIFF", "images", "Zarr", "OME-Zarr"
    axes: str  # canonical order, a subset of TCZYX that ends in YX
    shape: tuple[int, ...]  # one length per letter of `axes`
    dtype: str  # in which frames are read: uint8, uint16, int16 or float32
    channel_names: tuple[str, ...] = ()  # empty where the file names none
    pixel_size_um: dict[str, float] = field(default_factory=dict)  # by axis: "Z", "Y", "X"
    time_step_s: float | None = None
    identity: str = ""  # changes when the file does: sizes and times of what holds the pixels

    def size(self, axis: str) -> int:
        """Length of `axis`, 1 where the stack has none."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def n_frames(self) -> int:
        """Number of (t, z) planes."""
        return self.size("T") * self.size("Z")


class Stack(ABC):
    """An open stack. Reading is safe from several threads at once."""

    info: StackInfo

    @abstractmethod
    def read(self, t: int, z: int, channels: Sequence[int]) -> NDArray[Any]:
        """One frame.

        Returns an array of shape (len(channels), Y, X) and dtype `info.dtype`, C-contiguous and
        in native byte order. Raises FrameError where the frame cannot be read.
        """

    def close(self) -> None:  # noqa: B027 - most readers hold nothing open
        """Let go of open files."""

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass(frozen=True)
class AxesMap:
    """From a source's own order of axes to canonical frames.

    `source` names every dimension of the source array in its order, out of TCZYX; every source
    dimension of length 1 may also be called "_", which means: not an axis at all.
    """

    source: str

    def canonical(self, shape: Sequence[int]) -> tuple[str, tuple[int, ...]]:
        """Axes and shape in canonical order, unnamed dimensions dropped."""
        sizes = dict(zip(self.source, shape, strict=True))
        axes = "".join(a for a in CANONICAL if a in sizes)
        return axes, tuple(sizes[a] for a in axes)

    def index(self, t: int, z: int) -> tuple[int | slice, ...]:
        """Index that cuts the channels of one (t, z) plane out of the source array."""
        at: dict[str, int | slice] = {"T": t, "Z": z, "_": 0}
        return tuple(at.get(a, slice(None)) for a in self.source)

    def to_frame(self, plane: NDArray[Any], channels: Sequence[int], dtype: str) -> NDArray[Any]:
        """Turn what `index` cut out into a (C, Y, X) frame of the wanted channels and dtype."""
        left = [a for a in self.source if a in "CYX"]
        if "C" not in left:
            plane, left = plane[None], ["C", *left]
        ordered = plane.transpose([left.index(a) for a in "CYX"])[list(channels)]
        with np.errstate(over="ignore", invalid="ignore"):  # float64 beyond float32 is infinite
            return np.ascontiguousarray(ordered, dtype=np.dtype(dtype))


def read_dtype(dtype: np.dtype[Any], path: str) -> str:
    """The dtype in which pixels of `dtype` are read; StackError for complex and the like."""
    name = dtype.newbyteorder("=").name
    if name not in READ_AS:
        raise StackError(
            f"{path}: pixels of type {name} cannot be segmented; "
            "convert them to uint8, uint16, int16 or float32"
        )
    return READ_AS[name]


def check_axes(axes: str, ndim: int, path: str) -> str:
    """Validate axes given by the user against the number of dimensions; returns them upper-case."""
    axes = axes.upper()
    if len(set(axes)) != len(axes) or set(axes) - set(CANONICAL) or not {"Y", "X"} <= set(axes):
        raise StackError(
            f"{path}: axes {axes!r} are not understood; "
            "use each of T, C, Z, Y, X at most once, Y and X always, such as TYX"
        )
    if len(axes) != ndim:
        raise StackError(
            f"{path}: --axes {axes} names {len(axes)} dimensions, but the stack has {ndim}"
        )
    return axes
