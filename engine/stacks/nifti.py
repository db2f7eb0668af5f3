"""NIfTI, .nii and .nii.gz: frames as they lie in the file, one after the other.

    array of nibabel   x y z t c        here   C T Z Y X: the same bytes, the slowest axis first

Orientation is left as it is: row 0 is y = 0 of the array, whichever way that points in the patient.
`affine_of` reads the matrix that places the voxels, for whoever writes a result back.
"""

from __future__ import annotations

import math
import threading
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from engine.errors import MissingExtra, StackError, install_command
from engine.stacks.axes import source_axes
from engine.stacks.base import AxesMap, Stack, StackInfo, read_dtype
from engine.stacks.guard import opening
from engine.stacks.lengths import micrometres, seconds
from engine.stacks.rescale import BAND_BYTES, Rescale, rescaled, rescaled_dtype
from engine.stacks.units import UnitStack

_LETTERS = "??CTZYX"  # of dimensions 7 to 1; RGB comes after them
_HEADER = 540  # bytes of the larger header
_RATIO = 1032  # bytes that a byte of gzip can unpack to, at most
_CHUNK = 1 << 16  # bytes of gzip that are unpacked at once
_MARKS = 64  # places in a gzip stream from which unpacking can start
_MARK_BYTES = 4 << 20  # unpacked bytes between two of them, at least
_MARK_SIZE = 48 << 10  # bytes that a mark takes: zlib's window and tables
GZIP_BYTES = _MARKS * _MARK_SIZE + _CHUNK * 64


def is_nifti(head: bytes) -> bool:
    """Whether a file with these first 1024 bytes is NIfTI-1 or -2, packed by gzip or not."""
    head = _unpacked(head)
    return head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2")


def open_nifti(path: str, axes: str | None = None) -> Stack:
    """A NIfTI file as a stack; StackError where it cannot be read, MissingExtra without nibabel."""
    with opening(path):
        with Path(path).open("rb") as file:
            start = file.read(_CHUNK)
        packed = start[:2] == b"\x1f\x8b"
        layout = _layout(_header(_unpacked(start, _HEADER), path), path)
        size = Path(path).stat().st_size
        _check_size(layout, size, packed, path)
        return _stack(path, axes, layout, packed)


def affine_of(path: str) -> NDArray[np.float64]:
    """The 4 x 4 matrix from voxel indices x, y, z to mm, as the header of a NIfTI file has it."""
    with opening(path), Path(path).open("rb") as file:
        header = _header(_unpacked(file.read(_CHUNK), _HEADER), path)
        affine: NDArray[np.float64] = np.asarray(header.get_best_affine(), np.float64)
        return affine


@dataclass(frozen=True)
class _Layout:
    """How the voxels of a file are stored."""

    letters: str  # one for each dimension of `shape`, the slowest first
    shape: tuple[int, ...]
    dtype: np.dtype[Any]  # of one value, with its byte order
    colours: int  # values of a voxel
    offset: int  # bytes before the first voxel
    line: Rescale
    sizes: dict[str, float]  # um, by axis
    time_step_s: float | None
    notes: tuple[str, ...]

    @property
    def plane_bytes(self) -> int:
        return math.prod(self.shape[self.n_lead :]) * self.dtype.itemsize

    @property
    def n_lead(self) -> int:
        return self.letters.index("Y")

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def _unpacked(head: bytes, limit: int = 512) -> bytes:
    """The first bytes of what gzip packed; those of the file where it did not."""
    if head[:2] != b"\x1f\x8b":
        return head
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, limit)
    except zlib.error:
        return b""


def _header(head: bytes, path: str) -> Any:
    try:
        from nibabel.nifti1 import Nifti1Header
        from nibabel.nifti2 import Nifti2Header
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "nibabel":
            raise
        raise MissingExtra(f"NIfTI needs nibabel: {install_command('nifti')}") from None
    if head[344:347] == b"ni1" or head[4:7] == b"ni2":
        raise StackError(
            f"{path}: is the header of a pair of files; convert it to a single .nii file"
        )
    kind = Nifti2Header if head[4:7] == b"n+2" else Nifti1Header
    try:
        return kind.from_fileobj(BytesIO(head), check=False)
    except Exception as error:
        raise StackError(f"{path}: its header is damaged; copy it again") from error


def _layout(header: Any, path: str) -> _Layout:
    dims = [int(n) for n in header["dim"]]
    if not 2 <= dims[0] <= 7 or min(dims[1 : dims[0] + 1]) < 1:
        raise StackError(
            f"{path}: its header is damaged: it has no valid dimensions; copy it again"
        )
    shape = tuple(reversed(dims[1 : dims[0] + 1]))
    letters = _LETTERS[-len(shape) :]
    try:
        voxel = header.get_data_dtype()
    except Exception as error:
        raise StackError(f"{path}: has voxels of an unknown type; convert it") from error
    colours = len(voxel.names or ())
    if colours:
        shape, letters = (*shape, colours), letters.replace("C", "?") + "C"
    dtype = np.dtype("uint8") if colours else voxel
    read_dtype(dtype, path)
    slope, intercept = (None, None) if colours else header.get_slope_inter()
    sizes, step, notes = _calibration(header)
    offset = float(header["vox_offset"])
    if not math.isfinite(offset) or offset < 0:
        raise StackError(f"{path}: its header is damaged: its voxels begin nowhere; copy it again")
    return _Layout(
        letters=letters,
        shape=shape,
        dtype=dtype,
        colours=colours,
        offset=int(offset),
        line=Rescale() if slope is None else Rescale(float(slope), float(intercept or 0)),
        sizes=sizes,
        time_step_s=step,
        notes=notes,
    )


def _calibration(
    header: Any,
) -> tuple[dict[str, float], float | None, tuple[str, ...]]:
    """Sizes of a voxel in um, the time step in s, and what had to be assumed."""
    space, time = header.get_xyzt_units()
    notes: tuple[str, ...] = ()
    if space == "unknown":
        space, notes = "mm", ("its header names no unit of length; mm is assumed",)
    zooms = dict(zip("XYZT", (abs(float(z)) for z in header["pixdim"][1:5]), strict=True))
    unit = {"meter": "m", "micron": "um"}.get(space, space)
    found = {axis: micrometres(zooms[axis], unit) for axis in "ZYX"}
    step = seconds(zooms["T"], {"sec": "s", "msec": "ms", "usec": "us"}.get(time, time))
    return {a: um for a, um in found.items() if um}, step, notes


def _check_size(layout: _Layout, size: int, packed: bool, path: str) -> None:
    """StackError where the file cannot hold the voxels that its header counts."""
    if size * (_RATIO if packed else 1) < layout.end:
        raise StackError(
            f"{path}: is truncated or damaged: its voxels take {layout.end:,} bytes, and the file "
            f"has {size:,}{' packed' if packed else ''}; copy it again"
        )


def _stack(path: str, axes: str | None, layout: _Layout, packed: bool) -> Stack:
    source = source_axes(layout.letters, layout.shape, path, axes)
    canonical, sizes = AxesMap(source).canonical(layout.shape)
    stored = read_dtype(layout.dtype, path)
    limits = (0, 0)
    if layout.dtype.kind in "iu":
        limits = (int(np.iinfo(layout.dtype).min), int(np.iinfo(layout.dtype).max))
    dtype = rescaled_dtype(stored, [limits], [layout.line])
    stat = Path(path).stat()
    n_pixels = math.prod(layout.shape[layout.n_lead :])
    scaling = 0 if layout.line.changes_nothing else BAND_BYTES
    info = StackInfo(
        path=path,
        format="NIfTI, packed by gzip" if packed else "NIfTI",
        axes=canonical,
        shape=sizes,
        dtype=dtype,
        pixel_size_um={a: um for a, um in layout.sizes.items() if a in canonical},
        time_step_s=layout.time_step_s if "T" in canonical else None,
        unused=layout.notes,
        identity=f"{stat.st_size}:{stat.st_mtime_ns}",
        piece=None if packed else (1, sizes[-1]),
        piece_bytes=scaling + (GZIP_BYTES + n_pixels * layout.dtype.itemsize if packed else 0),
        stored_bytes=layout.dtype.itemsize,
        unit_channels=layout.colours or 1,
    )
    data: _Plain | _Packed = _Packed(path, layout.end) if packed else _Plain(path)
    stack = _NiftiStack(info, source, layout, data)
    if packed:  # what is read first is looked at, so that damage is found before a job begins
        with opening(path):
            data.read(layout.offset, min(layout.plane_bytes, 1 << 20))
    return stack


class _NiftiStack(UnitStack):
    """A plane of the file is a unit."""

    def __init__(
        self, info: StackInfo, source: str, layout: _Layout, data: _Plain | _Packed
    ) -> None:
        super().__init__(info, source, layout.shape, layout.n_lead)
        self._layout, self._data = layout, data

    def _part(self, n: int, part: tuple[slice, ...]) -> NDArray[Any]:
        layout = self._layout
        row = layout.plane_bytes // layout.shape[layout.n_lead]
        rows = part[0]
        raw = self._data.read(
            layout.offset + n * layout.plane_bytes + rows.start * row,
            (rows.stop - rows.start) * row,
        )
        shape = (rows.stop - rows.start, *self._unit_shape[1:])
        pixels = np.frombuffer(raw, layout.dtype).reshape(shape)[(slice(None), *part[1:])]
        return rescaled(pixels, layout.line, self.info.dtype)


class _Plain:
    """Bytes of a file; nothing stays open."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self, offset: int, n: int) -> bytes:
        """`n` bytes; ValueError where the file has fewer."""
        with Path(self._path).open("rb") as file:
            file.seek(offset)
            return _whole(file.read(n), n)


class _Packed:
    """Bytes out of a gzip file, from wherever: unpacking starts at the last mark before them.

    A mark is a copy of the unpacker as it stood there, some tens of kilobytes. So a frame costs the
    unpacking of a part of the file, not of all before it, and no more than that is in memory.
    """

    def __init__(self, path: str, end: int) -> None:
        self._path = path
        self._between = max(_MARK_BYTES, math.ceil(end / _MARKS))
        self._lock = threading.Lock()
        self._marks = [_Mark(0, 0, zlib.decompressobj(zlib.MAX_WBITS | 16))]

    def read(self, offset: int, n: int) -> bytes:
        """`n` bytes from `offset` of what is unpacked; ValueError where there are fewer."""
        with self._lock, Path(self._path).open("rb") as file:
            start = next(mark for mark in reversed(self._marks) if mark.out <= offset)
            mark = _Mark(start.at, start.out, start.unpacker.copy())
            parts: list[bytes] = []
            while mark.out < offset + n:
                chunk = mark.next_bytes(file)
                if not chunk:
                    break
                begin = mark.out - len(chunk)
                if wanted := chunk[max(offset - begin, 0) : max(offset + n - begin, 0)]:
                    parts.append(wanted)
                if mark.out - self._marks[-1].out >= self._between:
                    self._marks.append(_Mark(mark.at, mark.out, mark.unpacker.copy()))
            return _whole(b"".join(parts), n)


class _Mark:
    """An unpacker, where it stands in the file and in what is unpacked."""

    def __init__(self, at: int, out: int, unpacker: Any) -> None:
        self.at, self.out, self.unpacker = at, out, unpacker

    def next_bytes(self, file: BinaryIO) -> bytes:
        """What comes next, b"" at the end; zlib.error where the file is damaged."""
        while True:
            packed = self.unpacker.unconsumed_tail
            if self.unpacker.eof:  # gzip files may follow each other
                packed = self.unpacker.unused_data
                self.unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
            if not packed:
                file.seek(self.at)
                packed = file.read(_CHUNK)
                self.at += len(packed)
                if not packed:
                    return b""
            out: bytes = self.unpacker.decompress(packed, _CHUNK * 16)
            if out:
                self.out += len(out)
                return out


def _whole(data: bytes, n: int) -> bytes:
    if len(data) != n:
        raise ValueError("the file is truncated; copy it again")
    return data
