"""TIFF in all its dialects: plain multi-page, ImageJ hyperstack, OME-TIFF, BigTIFF, tiled, packed.

tifffile says what the file holds and decodes it; this module distrusts the file. A file of
several images is read as the one with the most pixels (pyramid level 0), so that a thumbnail
never wins. Opening notes where each page's directory lies and closes the file again; the first
read opens it. Pages are parsed when they are read and then forgotten, so that memory does not
grow with the number of frames read.
"""

from __future__ import annotations

import io
import math
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError, StackError
from engine.stacks.axes import source_axes
from engine.stacks.base import AxesMap, Stack, StackInfo, read_dtype
from engine.stacks.guard import brief, opening, tifffile_messages
from engine.stacks.runs import read_part
from engine.stacks.tiffchain import check_chain
from engine.stacks.tiffmeta import calibration
from engine.stacks.tiffpage import check_page, check_pictures
from engine.stacks.tiffseries import (
    main_series,
    refuse_files_elsewhere,
    refuse_lost_frames,
    series_axes,
    series_pages,
)
from engine.stacks.tiffwindow import page_part, storage
from engine.stacks.units import UnitStack, split_lead

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

    from engine.stacks.tiffseries import Page


_READ_AT_ONCE = 1  # bytes, so: a strip or tile; tifffile would hold all those of a page, twice


@dataclass(frozen=True)
class _Contiguous:
    """All pixels lie in the file one after the other, unpacked."""

    file: str
    offset: int  # of the first pixel
    dtype: np.dtype[Any]  # as in the file, with its byte order


@dataclass(frozen=True)
class _Pages:
    """Where the directory of each page lies."""

    files: tuple[str, ...]
    file: NDArray[np.int32]  # index into `files`, by page
    directory: NDArray[np.int64]  # offset of the page's directory, by page; 0: page is missing
    unit_shape: tuple[int, ...]  # of a page, as the source array has it
    page_shape: tuple[int, ...]  # of a page, as tifffile has it
    dtype: np.dtype[Any]


def open_tiff(
    path: str, axes: str | None = None, *, multifile: bool = True, name: str | None = None
) -> Stack:
    """Open the TIFF file at `path`; StackError where it cannot be read as a stack.

    With `multifile` false, OME metadata that speaks of other files is ignored. `name` is what
    the stack is called in messages, `path` by default.
    """
    from tifffile import TiffFile

    name = name or path
    with opening(name), tifffile_messages() as messages:
        if not path.lower().endswith(".ndpi"):  # has a chain of its own kind
            check_chain(path)
        ome = None if multifile else False
        try:
            with TiffFile(path, is_ome=ome) as tif:
                return _stack(tif, messages, path, name, axes)
        except RuntimeError:  # a page unlike the others, where tifffile took them to be alike
            with TiffFile(path, is_uniform=False, is_ome=ome) as tif:
                return _stack(tif, messages, path, name, axes)


def _stack(
    tif: TiffFile, messages: list[tuple[int, str]], path: str, name: str, axes: str | None
) -> Stack:
    if tif.is_ome:
        refuse_files_elsewhere(tif, name)
    series = main_series(tif, name)
    refuse_lost_frames(messages, name)
    letters, shape = series_axes(tif, series)
    pages, shape = series_pages(tif, series, shape)
    source = source_axes(letters, shape, name, axes)
    dtype = np.dtype(series.dtype)
    canonical, sizes = AxesMap(source).canonical(shape)
    channel_names, pixel_size, time_step = calibration(tif, series, canonical, sizes)
    info = StackInfo(
        path=name,
        format="OME-TIFF" if series.kind == "ome" else "TIFF",
        axes=canonical,
        shape=sizes,
        dtype=read_dtype(dtype, name),
        channel_names=channel_names,
        pixel_size_um=pixel_size,
        time_step_s=time_step,
        identity=_identity(series, path),
    )
    if series.dataoffset is not None and series.keyframe.is_final and series.transform is None:
        place = _Contiguous(path, series.dataoffset, dtype.newbyteorder(tif.byteorder))
        n_lead = min(source.index("Y"), source.index("X"))
        _check_first(name, place.offset, shape[n_lead:], dtype, Path(path).stat().st_size)
        info = replace(
            info,
            piece=(1, info.size("X")),
            stored_bytes=dtype.itemsize,
            unit_channels=info.size("C") if "C" in source[n_lead:] else 1,
        )
        return _ContiguousTiff(info, source, shape, n_lead, place)
    return _paged(info, source, shape, series, pages)


def _check_first(
    name: str, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], size: int
) -> None:
    if offset + math.prod(shape) * dtype.itemsize > size:
        raise StackError(
            f"{name}: is truncated, its first frame ends beyond the end of the file; copy it again"
        )


def _paged(
    info: StackInfo,
    source: str,
    shape: tuple[int, ...],
    series: TiffPageSeries,
    pages: list[Page | None],
) -> Stack:
    key = series.keyframe
    n_lead = split_lead(shape, math.prod(key.shape))
    if n_lead is None:
        raise StackError(f"{info.path}: its pages do not add up to shape {shape}; convert it")
    n_units = math.prod(shape[:n_lead])
    files: dict[str, int] = {}
    file = np.zeros(n_units, np.int32)
    directory = np.zeros(n_units, np.int64)
    for i, page in enumerate(pages[:n_units]):
        if page is not None:
            file[i] = files.setdefault(_file_of(page.parent), len(files))
            directory[i] = page.offset
    place = _Pages(
        tuple(files), file, directory, tuple(shape[n_lead:]), key.shape, np.dtype(series.dtype)
    )
    if pages[0] is key:
        _refuse_undecodable(key, info.path)
    info = storage(info, source[n_lead:], shape[n_lead:], key, whole=series.transform is not None)
    return _PagedTiff(info, source, shape, n_lead, place, series.transform)


def _refuse_undecodable(page: TiffPage, name: str) -> None:
    """StackError where the first page is not whole, or of a kind that nothing here decodes."""
    try:
        check_page(page, page.parent.filehandle.size)
    except ValueError as error:
        raise StackError(f"{name}: its first frame {error}; copy or write it again") from error
    try:
        if not page.is_contiguous:
            page.decode(None, 0)  # decodes nothing, but says what it cannot
    except Exception as error:
        raise StackError(
            f"{name}: its pixels cannot be decoded ({brief(error)}); convert it to plain TIFF"
        ) from error


def _file_of(tif: TiffFile) -> str:
    return str(tif.filehandle.path)


def _identity(series: TiffPageSeries, path: str) -> str:
    """Size and time of every file that holds pixels."""
    files = {path}
    if series.is_multifile:
        files |= {_file_of(page.parent) for page in series if page is not None}
    stats = [Path(file).stat() for file in sorted(files)]
    return ";".join(f"{s.st_size}:{s.st_mtime_ns}" for s in stats)


class _ContiguousTiff(UnitStack):
    """Reads raw pixels by their place in the file; no directory is looked at."""

    def __init__(
        self, info: StackInfo, source: str, shape: tuple[int, ...], n_lead: int, place: _Contiguous
    ) -> None:
        super().__init__(info, source, shape, n_lead)
        self._place = place
        self._lock = threading.Lock()
        self._file: io.FileIO | None = None

    def _unit(self, n: int) -> NDArray[Any]:
        return self._part(n, tuple(slice(0, size) for size in self._unit_shape))

    def _part(self, n: int, part: tuple[slice, ...]) -> NDArray[Any]:
        place = self._place
        start = place.offset + n * math.prod(self._unit_shape) * place.dtype.itemsize
        with self._lock:
            if self._file is None:  # unbuffered: only the pixels are read
                self._file = Path(place.file).open("rb", buffering=0)  # noqa: SIM115 - kept open
            pixels = read_part(self._file, start, self._unit_shape, place.dtype, part)
        if pixels is None:
            raise FrameError(
                f"{self.info.path}: is truncated, page {n} ends beyond the end of the file"
            )
        return pixels

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        super().close()
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = None


class _PagedTiff(UnitStack):
    """Reads and decodes page by page."""

    def __init__(
        self,
        info: StackInfo,
        source: str,
        shape: tuple[int, ...],
        n_lead: int,
        place: _Pages,
        transform: Any,
    ) -> None:
        super().__init__(info, source, shape, n_lead)
        self._place = place
        self._transform = transform
        self._lock = threading.Lock()
        self._open: dict[int, TiffFile] = {}
        self._window_lock = threading.Lock()
        self._last_page: tuple[int, TiffPage] | None = None

    def _unit(self, n: int) -> NDArray[Any]:
        with tifffile_messages():
            page = self._page(n)
            check_page(page, page.parent.filehandle.size)
            check_pictures(page)
            pixels = page.asarray(maxworkers=1, buffersize=_READ_AT_ONCE)
        if self._transform is not None:
            pixels = self._transform(pixels)
        return self._checked(n, pixels).reshape(self._place.unit_shape)

    def _part(self, n: int, part: tuple[slice, ...]) -> NDArray[Any]:
        with self._window_lock:  # a page of many tiles takes long to parse: the last one is kept
            if self._last_page is None or self._last_page[0] != n:
                self._last_page = None
                with tifffile_messages():
                    self._last_page = (n, self._page(n))
            page = self._last_page[1]
        with tifffile_messages():
            return self._checked(n, page_part(page, self._place.unit_shape, part))

    def _checked(self, n: int, pixels: NDArray[Any]) -> NDArray[Any]:
        if pixels.dtype.newbyteorder("=") != self._place.dtype:
            raise FrameError(
                f"{self.info.path}: page {n} has pixels of type {pixels.dtype}, "
                f"the others of {self._place.dtype}"
            )
        return pixels

    def _page(self, n: int) -> TiffPage:
        """Parse the directory of page `n`; the lock guards the position of the file."""
        from tifffile import TiffFile, TiffPage

        if not self._place.directory[n]:
            raise FrameError(f"{self.info.path}: page {n} is missing from the file")
        with self._lock:
            which = int(self._place.file[n])
            if which not in self._open:
                tif = TiffFile(self._place.files[which])
                tif.filehandle.set_lock(True)
                self._open[which] = tif
            tif = self._open[which]
            with tif.filehandle.lock:
                tif.filehandle.seek(int(self._place.directory[n]))
                page = TiffPage(tif, index=n)
        if page.shape != self._place.page_shape:
            raise FrameError(
                f"{self.info.path}: page {n} has shape {page.shape}, "
                f"the others have {self._place.page_shape}"
            )
        return page

    def close(self) -> None:
        """Close the files; a later read opens them again."""
        super().close()
        with self._window_lock:
            self._last_page = None
        with self._lock:
            for tif in self._open.values():
                tif.close()
            self._open.clear()
