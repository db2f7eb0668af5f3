"""What a stack is to the rest of the engine: named axes, a shape, a dtype, and frames to read.

A reader may hold its pixels in any order of axes. It says so once, in its *source axes*, and
everybody else sees the canonical order T, C, Z, Y, X with the absent axes left out.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import StackError
from engine.geometry.tiling import round_up

CANONICAL = "TCZYX"
SKIP = 1024  # bytes; where pixels lie unpacked in a file, gaps up to this are read through
WINDOW_SIDE = 2048  # px; least width of a window where pieces are narrower than the frame
WINDOW_PIXELS = 4 * 2**20  # px of a window, or a little more: whole strips, tiles or chunks

READ_AS = {
    # Integers stay what they are, so that their measures are exact; what the network sees of
    # those of 32 and 64 bits is float32. What is narrower is widened without loss; float64
    # becomes float32.
    "bool": "uint8",
    "uint8": "uint8",
    "int8": "int16",
    "uint16": "uint16",
    "int16": "int16",
    "float16": "float32",
    "float32": "float32",
    "float64": "float32",
    "uint32": "uint32",
    "int32": "int32",
    "uint64": "uint64",
    "int64": "int64",
}


@dataclass(frozen=True)
class StackInfo:
    """What is known of a stack without reading a pixel. Plain data: pickles, prints, compares."""

    path: str  # as the user gave it
    format: str  # "TIFF", "images", "Zarr", "OME-Zarr", perhaps with a remark: "Zarr, ..."
    axes: str  # canonical order, a subset of TCZYX that ends in YX
    shape: tuple[int, ...]  # one length per letter of `axes`
    dtype: str  # in which frames are read: a value of READ_AS
    channel_names: tuple[str, ...] = ()  # empty where the file names none
    pixel_size_um: dict[str, float] = field(default_factory=dict)  # by axis: "Z", "Y", "X"
    time_step_s: float | None = None
    unused: tuple[str, ...] = ()  # what the input holds and the stack does not, a sentence each
    series: str = ""  # which of the stacks at `path`, as `open_stack` takes it; "": the only one
    series_name: str = ""  # as the metadata call it, where the input holds several images
    lacking: str = ""  # a sentence where the metadata count frames that are not there
    min_is_white: bool = False  # 0 is white in the file; pixels are read inverted
    window: tuple[float, float] | None = None  # center and width, where all frames have the same
    identity: str = ""  # changes when the file does: sizes and times of what holds the pixels
    # How pixels are stored; `read_bytes` is made of it.
    piece: tuple[int, int] | None = None  # height, width decoded at once; None: the whole frame
    piece_bytes: int = 0  # that decoding a piece takes besides the pixels read; 0: unpacked
    pieces_at_once: int = 1  # decoded side by side in one read
    stored_bytes: int = 0  # of one value in the file; 0: it is stored as it is read
    unit_channels: int = 1  # channels decoded together, whichever are read; 0: those read

    def size(self, axis: str) -> int:
        """Length of `axis`, 1 where the stack has none."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def n_frames(self) -> int:
        """Number of (t, z) planes."""
        return self.size("T") * self.size("Z")

    def without_alpha(self) -> StackInfo:
        """The same stack without its last channel, which is an opaque alpha channel."""
        n, at = self.size("C") - 1, self.axes.index("C")
        before, after = self.shape[:at], self.shape[at + 1 :]
        return replace(
            self,
            axes=self.axes if n > 1 else self.axes.replace("C", ""),
            shape=(*before, n, *after) if n > 1 else (*before, *after),
            channel_names=self.channel_names[:n] if n > 1 else (),
            unused=(*self.unused, "its opaque alpha channel is left out"),
        )

    def read_bytes(self, height: int, width: int, n_channels: int | None = None) -> int:
        """Predicted peak, in bytes, of reading one window of `height` x `width` pixels.

        Counts the pixels returned, those of `n_channels` (default: all) channels, and what is
        decoded on the way; where `piece` is None that is the whole frame, which the stack keeps.
        """
        n = self.size("C") if n_channels is None else n_channels
        value = np.dtype(self.dtype).itemsize
        returned = n * height * width * value
        rows, columns = self.size("Y"), self.size("X")
        if self.piece is not None:
            rows, columns = min(height, rows), min(width, columns)
        stored = (self.unit_channels or n) * (self.stored_bytes or value)  # of a pixel
        frame = n * rows * columns * value
        unit = rows * columns * stored
        if self.piece_bytes:
            decoding = self.piece_bytes * min(self.pieces_at_once, self._pieces(rows, columns))
        elif self.piece is not None:
            gap = (self.size("X") - columns) * stored
            decoding = rows * gap + frame if gap <= SKIP and gap else 0
        else:
            decoding = unit
        if self.unit_channels == 1 and n > 1:  # each channel is decoded, then put into its place
            peak = frame + unit + decoding
        else:
            copied = self.stored_bytes not in (0, value) or self.unit_channels > 1
            peak = unit + max(decoding, frame if copied else 0)
        if self.piece is not None:
            return peak
        # zarr lets go of its chunks late: at times only when the frame is being cropped.
        lingering = decoding if self.unit_channels == 0 else 0
        return max(peak, frame + returned + lingering)

    def _pieces(self, height: int, width: int) -> int:
        """The most pieces that a window can touch, wherever it lies."""
        n = 1
        for size, window, piece in zip(
            (self.size("Y"), self.size("X")), (height, width), self.piece or (0, 0), strict=True
        ):
            if piece:
                n *= min(math.ceil(max(window - 1, 0) / piece) + 1, math.ceil(size / piece))
        return n


class Stack(ABC):
    """An open stack. Reading is safe from several threads at once."""

    info: StackInfo

    def __init__(self, info: StackInfo) -> None:
        self.info = info
        self._last_lock = threading.Lock()
        self._last: tuple[tuple[int, ...], NDArray[Any]] | None = None  # frame that windows share

    @abstractmethod
    def read(self, t: int, z: int, channels: Sequence[int]) -> NDArray[Any]:
        """One frame.

        Returns an array of shape (len(channels), Y, X) and dtype `info.dtype`, C-contiguous and
        in native byte order. Raises FrameError where the frame cannot be read.
        """

    def read_window(
        self, t: int, z: int, channels: Sequence[int], rows: slice, columns: slice
    ) -> NDArray[Any]:
        """`read(t, z, channels)[:, rows, columns]`; slices have no step but 1.

        Returns an array of its own, C-contiguous, of dtype `info.dtype`; only the pieces
        (`info.piece`) that the window touches are decoded. A format without pieces decodes the
        frame, and the stack keeps the last one, so that all windows of a frame decode it once.
        Raises FrameError where those pixels cannot be read.
        """
        key = (t, z, *channels)
        with self._last_lock:  # held while decoding: no two threads decode the same frame
            if self._last is None or self._last[0] != key:
                self._last = None  # freed before the next is decoded
                self._last = (key, self.read(t, z, channels))
            frame = self._last[1]
        height, width = frame.shape[1:]
        return frame[:, bounds(rows, height), bounds(columns, width)].copy()

    def missing_chunks(
        self,
        t: int,
        z: int,
        channels: Sequence[int],
        rows: slice | None = None,
        columns: slice | None = None,
    ) -> int:
        """How many of the stored chunks that hold these pixels are absent.

        They read as background without an error. Only Zarr has such chunks; what it does not
        store because it was never written, or is background, counts as absent as well.
        """
        return 0

    def lacks(self, ts: range, zs: range) -> bool:
        """Whether the metadata count one of these frames, and no file holds it in full."""
        return False

    def n_chunks(self, t: int, z: int, channels: Sequence[int]) -> int:
        """How many chunks these channels of a frame take, absent or not; 0 in other formats."""
        return 0

    def holds_any(self) -> bool:
        """Whether any chunk of the stack is there; True in other formats."""
        return True

    @property
    def files(self) -> frozenset[str]:
        """Real paths of the files that hold the pixels, where they are several; else empty."""
        return frozenset()

    def identifiers(self) -> dict[str, str]:
        """What links the stack to a patient and a study, by DICOM's keywords; {} in other formats.

        Asked for where a user wants to keep it, and read for that alone.
        """
        return {}

    def companions(self, given: Container[str] = ()) -> tuple[str, ...]:
        """A sentence on images that belong to it and are not read.

        Those of the same set in other files than those in `given`, real paths; images of a folder
        that are not like its first.
        """
        return ()

    def close(self) -> None:
        """Let go of open files and of pixels; a later read opens them again."""
        with self._last_lock:
            self._last = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def bounds(window: slice, size: int) -> slice:
    """The slice with both ends given and inside 0..size; ValueError for a step other than 1."""
    if window.step not in (None, 1):
        raise ValueError(f"{window}: a window has no step but 1")
    start, stop, _ = window.indices(size)
    return slice(start, max(start, stop))


def windows_of(info: StackInfo) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of windows that together are a frame, in raster order, in whole pieces."""
    height, width = info.size("Y"), info.size("X")
    down, across = window_shape(info)
    for y in range(0, height, down):
        for x in range(0, width, across):
            yield slice(y, min(y + down, height)), slice(x, min(x + across, width))


def window_shape(info: StackInfo) -> tuple[int, int]:
    """Height and width of every window of `windows_of` but the last ones."""
    height, width = info.size("Y"), info.size("X")
    piece_height, piece_width = info.piece or (1, width)
    across = width if piece_width >= width else min(round_up(WINDOW_SIDE, piece_width), width)
    return min(round_up(max(WINDOW_PIXELS // across, 1), piece_height), height), across


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

    def index(
        self, t: int, z: int, rows: slice = slice(None), columns: slice = slice(None)
    ) -> tuple[int | slice, ...]:
        """Index that cuts a window of all channels of one (t, z) plane out of the source array."""
        at: dict[str, int | slice] = {"T": t, "Z": z, "_": 0, "Y": rows, "X": columns}
        return tuple(at.get(a, slice(None)) for a in self.source)

    def to_frame(self, plane: NDArray[Any], channels: Sequence[int], dtype: str) -> NDArray[Any]:
        """Turn what `index` cut out into a (C, Y, X) frame of the wanted channels and dtype."""
        left = [a for a in self.source if a in "CYX"]
        if "C" not in left:
            plane, left = plane[None], ["C", *left]
        ordered = plane.transpose([left.index(a) for a in "CYX"])
        if list(channels) != list(range(len(ordered))):  # picking copies, even to the same order
            ordered = ordered[list(channels)]
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
            f"{path}: axes {axes!r} are not valid; "
            "use each of T, C, Z, Y, X at most once, and always Y and X, as in TYX"
        )
    if len(axes) != ndim:
        raise StackError(
            f"{path}: --axes {axes} names {len(axes)} dimensions, but the stack has {ndim}"
        )
    return axes
