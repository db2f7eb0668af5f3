"""A stack whose pixels lie in TIFF files, page by page."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError
from engine.stacks.base import StackInfo
from engine.stacks.guard import some, tifffile_messages
from engine.stacks.tiff.images import Place
from engine.stacks.tiff.page import page_part, read_part, whole_page
from engine.stacks.tiff.palette import COLOURS, Palette, like, refuse_palette
from engine.stacks.units import UnitStack

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

MIN_IS_WHITE = 0  # PhotometricInterpretation


@dataclass(frozen=True)
class PageFormat:
    """What all pages of a stack have in common."""

    shape: tuple[int, ...]  # as tifffile has it
    dtype: np.dtype[Any]  # as in the file, with its byte order
    white: int | None  # of pages without a directory, see `white_of`
    exact: bool  # pages are read as they are written, also where 0 is white
    transform: Callable[[NDArray[Any]], NDArray[Any]] | None  # of the pixels of a page
    palette: Palette | None = None  # of the first page, where its values are indices
    is_plain: bool = False  # whether a palette of any page would mean colours


@dataclass(frozen=True)
class Pages:
    """Where each page lies."""

    files: tuple[str, ...]
    file: NDArray[np.int32]  # index into `files`, by page
    directory: NDArray[np.int64]  # offset of the page's directory, by page; 0: it is not needed
    pixels: NDArray[np.int64]  # offset of unpacked pixels, by page; 0: the directory says where

    @classmethod
    def of(cls, places: Sequence[Place | None], n_pages: int) -> Pages:
        """The same as arrays, for `n_pages` pages; those without a place are absent."""
        files: dict[str, int] = {}
        which, directory = np.zeros(n_pages, np.int32), np.zeros(n_pages, np.int64)
        pixels = np.zeros(n_pages, np.int64)
        for i, place in enumerate(places[:n_pages]):
            if place is not None:
                which[i] = files.setdefault(place.file, len(files))
                directory[i], pixels[i] = place.directory, place.pixels
        return cls(tuple(files), which, directory, pixels)

    @classmethod
    def unpacked(cls, file: str, offset: int, n_bytes: int, n_pages: int) -> Pages:
        """Pages of `n_bytes` each that lie in `file` one after the other, from `offset` on."""
        pixels = offset + n_bytes * np.arange(n_pages, dtype=np.int64)
        return cls((file,), np.zeros(n_pages, np.int32), np.zeros_like(pixels), pixels)

    @property
    def absent(self) -> NDArray[np.bool_]:
        """Which pages no file has."""
        absent: NDArray[np.bool_] = (self.directory == 0) & (self.pixels == 0)
        return absent


def white_of(page: TiffPage) -> int | None:
    """The value shown as black where 0 is white, None where 0 is black or pixels are floats.

    TIFF 6.0, PhotometricInterpretation 0 (WhiteIsZero): values count down from white. A page
    without that tag, which tifffile takes for 0, is read as it is.
    """
    dtype = np.dtype(page.dtype)
    if not says_white(page) or dtype.kind not in "bui":
        return None
    bits = page.bitspersample if isinstance(page.bitspersample, int) else 8 * dtype.itemsize
    return -1 if dtype.kind == "i" else 2**bits - 1


def says_white(page: TiffPage) -> bool:
    """Whether a page's tags say that 0 is white."""
    return page.photometric == MIN_IS_WHITE and "PhotometricInterpretation" in page.tags


def inverted(pixels: NDArray[Any], white: int | None) -> NDArray[Any]:
    """Pixels that grow with brightness: white minus the value, as ImageJ and Pillow do."""
    if white is None:
        return pixels
    if white == -1 or pixels.dtype.kind == "b":
        return ~pixels
    out: NDArray[Any] = np.subtract(pixels.dtype.type(white), pixels, dtype=pixels.dtype)
    return out


class TiffStack(UnitStack):
    """Reads page by page: unpacked pixels by their place in the file, others by their directory."""

    others: Mapping[str, str] = MappingProxyType({})  # images of the set in other files, by file

    def __init__(
        self,
        info: StackInfo,
        source: str,
        shape: tuple[int, ...],
        n_lead: int,
        pages: Pages,
        page_format: PageFormat,
        key: TiffPage,
    ) -> None:
        """`key` is the page that the others are like."""
        super().__init__(info, source, shape, n_lead)
        self.key = key
        self._pages, self._format = pages, page_format
        self._lock = threading.Lock()  # of open files and of their positions
        self._open_files = ExitStack()
        self._parsed: dict[int, TiffFile] = {}
        self._raw_files: dict[int, FileIO] = {}
        self._window_lock = threading.Lock()
        self._last_page: tuple[int, TiffPage] | None = None

    def again(self) -> TiffStack:
        """The same stack, with nothing open."""
        place = self.info, self._map.source, (*self._lead, *self._unit_shape), len(self._lead)
        stack = TiffStack(*place, self._pages, self._format, self.key)
        stack.others = self.others
        return stack

    @property
    def palette(self) -> Palette | None:
        """The palette of the first page, where its values are indices."""
        return self._format.palette

    def lacks(self, ts: range, zs: range) -> bool:
        """See `Stack.lacks`."""
        wanted = {"T": slice(ts.start, ts.stop), "Z": slice(zs.start, zs.stop)}
        at = tuple(wanted.get(axis, slice(None)) for axis in self._map.source[: len(self._lead)])
        return bool(self._pages.absent.reshape(self._lead)[at].any())

    @property
    def files(self) -> frozenset[str]:
        """See `Stack.files`."""
        files = frozenset(os.path.realpath(file) for file in self._pages.files)
        return files if len(files) > 1 else frozenset()

    def companions(self, given: Container[str] = ()) -> tuple[str, ...]:
        """See `Stack.companions`."""
        left = {file: what for file, what in self.others.items() if file not in given}
        if not left:
            return ()
        names = some(sorted(Path(file).name for file in left))
        what = some(list(dict.fromkeys(left.values())), "; ")
        return (f"its metadata also describe {what}, in {names}; give these as well",)

    def _part(self, n: int, part: tuple[slice, ...]) -> NDArray[Any]:
        first = self._format.palette
        page = None if self._pages.pixels[n] else self._parsed_page(n)
        if first is None:
            if page is not None and self._format.is_plain:
                refuse_palette(page, self.info.path, n)
            return self._stored_part(n, page, self._unit_shape, part)
        channels, shape = slice(None), self._unit_shape
        if first.read_as == COLOURS:
            channels, part, shape = part[0], part[1:], shape[1:]
        indices = self._stored_part(n, page, shape, part)
        palette = first if page is None else like(first, page, self.info.path, n)
        return palette.pixels(indices, channels)

    def _stored_part(
        self, n: int, page: TiffPage | None, shape: tuple[int, ...], part: tuple[slice, ...]
    ) -> NDArray[Any]:
        """A part of page `n`, of `shape`, as it is stored; where 0 is white, inverted.

        `page` is None where the place of its pixels is known without its directory.
        """
        pages = self._pages
        if page is None:
            start = int(pages.pixels[n])
            with self._lock:
                file = self._raw_file(int(pages.file[n]))
                raw = read_part(file, start, shape, self._format.dtype, part)
            if raw is None:
                raise FrameError(
                    f"{self.info.path}: is truncated, page {n} ends beyond the end of the file"
                )
            return inverted(raw, self._format.white)
        with tifffile_messages():
            if self._format.transform is None:
                pixels = page_part(page, shape, part)
            else:
                pixels = self._format.transform(whole_page(page)).reshape(shape)[part]
        expected = self._format.dtype.newbyteorder("=")
        if pixels.dtype.newbyteorder("=") != expected:
            raise FrameError(
                f"{self.info.path}: page {n} has pixels of type {pixels.dtype}, "
                f"the others {expected}"
            )
        # Page by page: 0 may be white in some and not in others.
        return pixels if self._format.exact else inverted(pixels, white_of(page))

    def _parsed_page(self, n: int) -> TiffPage:
        """Page `n`; one of many tiles takes long to parse: the last one is kept."""
        with self._window_lock:
            if self._last_page is None or self._last_page[0] != n:
                self._last_page = None
                with tifffile_messages():
                    self._last_page = (n, self._page(n))
            return self._last_page[1]

    def _page(self, n: int) -> TiffPage:
        """Parse the directory of page `n`."""
        from tifffile import TiffFile, TiffPage

        pages = self._pages
        if not pages.directory[n]:
            raise FrameError(
                f"{self.info.path}: page {n} is missing from the file, which may be truncated"
            )
        which = int(pages.file[n])
        with self._lock:
            if which not in self._parsed:
                self._parsed[which] = self._open_files.enter_context(TiffFile(pages.files[which]))
                self._parsed[which].filehandle.set_lock(True)
            tif = self._parsed[which]
            with tif.filehandle.lock:
                tif.filehandle.seek(int(pages.directory[n]))
                page = TiffPage(tif, index=n)
        if page.shape != self._format.shape:
            raise FrameError(
                f"{self.info.path}: page {n} has shape {page.shape}, "
                f"the others have {self._format.shape}"
            )
        return page

    def _raw_file(self, which: int) -> FileIO:
        """One of the files, unbuffered, so that only the pixels are read; called under the lock."""
        if which not in self._raw_files:
            path = Path(self._pages.files[which])
            file = path.open("rb", buffering=0)
            self._raw_files[which] = self._open_files.enter_context(file)
        return self._raw_files[which]

    def close(self) -> None:
        """Close the files; a later read opens them again."""
        super().close()
        with self._window_lock:
            self._last_page = None
        with self._lock:
            self._open_files.close()
            self._parsed.clear()
            self._raw_files.clear()
