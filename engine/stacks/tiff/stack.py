"""Stacks whose pixels lie in TIFF files: one after the other, or page by page."""

from __future__ import annotations

import io
import math
import os
import threading
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError
from engine.stacks.base import StackInfo
from engine.stacks.guard import some, tifffile_messages
from engine.stacks.runs import read_part
from engine.stacks.tiff.images import Place
from engine.stacks.tiff.page import check_page, check_pictures
from engine.stacks.tiff.window import page_part
from engine.stacks.units import UnitStack

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_READ_AT_ONCE = 1  # bytes, so: a strip or tile; tifffile would hold all those of a page, twice
MIN_IS_WHITE = 0  # PhotometricInterpretation


@dataclass(frozen=True)
class Contiguous:
    """All pixels lie in the file one after the other, unpacked."""

    file: str
    offset: int  # of the first pixel
    dtype: np.dtype[Any]  # as in the file, with its byte order
    white: int | None  # the value that is shown as white where that is 0; None: 0 is black


@dataclass(frozen=True)
class Pages:
    """Where each page lies."""

    files: tuple[str, ...]
    file: NDArray[np.int32]  # index into `files`, by page
    directory: NDArray[np.int64]  # offset of the page's directory, by page; 0: it is not needed
    pixels: NDArray[np.int64]  # offset of the page's pixels, by page; 0: its directory says
    unit_shape: tuple[int, ...]  # of a page, as the source array has it
    page_shape: tuple[int, ...]  # of a page, as tifffile has it
    dtype: np.dtype[Any]  # as in the file, with its byte order
    white: int | None  # of pages without a directory, see `Contiguous`
    exact: bool  # pages are read as they are written, also where 0 is white

    @classmethod
    def of(cls, places: Sequence[Place | None], n_units: int, **like: Any) -> Pages:
        """The same as arrays, for `n_units` pages: those without a place are absent.

        `like` are the other fields.
        """
        files: dict[str, int] = {}
        which, directory = np.zeros(n_units, np.int32), np.zeros(n_units, np.int64)
        pixels = np.zeros(n_units, np.int64)
        for i, place in enumerate(places[:n_units]):
            if place is not None:
                which[i] = files.setdefault(place.file, len(files))
                directory[i], pixels[i] = place.directory, place.pixels
        return cls(files=tuple(files), file=which, directory=directory, pixels=pixels, **like)

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


def turned_round(pixels: NDArray[Any], white: int | None) -> NDArray[Any]:
    """Pixels that grow with brightness: white minus the value, as ImageJ and Pillow do."""
    if white is None:
        return pixels
    if pixels.dtype.kind == "b":
        return ~pixels
    if white == -1:
        turned: NDArray[Any] = ~pixels
    else:
        turned = np.subtract(pixels.dtype.type(white), pixels, dtype=pixels.dtype)
    return turned


class TiffStack(UnitStack):
    """What both kinds share: the page that others are like, the file's place in a set of files."""

    beside: Mapping[str, str] = MappingProxyType({})  # images of the set in other files, by file

    def __init__(
        self, info: StackInfo, source: str, shape: tuple[int, ...], n_lead: int, key: TiffPage
    ) -> None:
        super().__init__(info, source, shape, n_lead)
        self.key = key

    def _truncated(self, n: int) -> FrameError:
        return FrameError(
            f"{self.info.path}: is truncated, page {n} ends beyond the end of the file"
        )

    def said_beside(self, given: Container[str] = ()) -> tuple[str, ...]:
        """See `Stack.said_beside`."""
        left = {file: what for file, what in self.beside.items() if file not in given}
        if not left:
            return ()
        names = some(sorted(Path(file).name for file in left))
        what = some(list(dict.fromkeys(left.values())), "; ")
        return (f"its metadata also describe {what}, in {names}; give these as well",)


class ContiguousTiff(TiffStack):
    """Reads raw pixels by their place in the file; no directory is looked at."""

    def __init__(
        self,
        info: StackInfo,
        source: str,
        shape: tuple[int, ...],
        n_lead: int,
        place: Contiguous,
        key: TiffPage,
    ) -> None:
        super().__init__(info, source, shape, n_lead, key)
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
            raise self._truncated(n)
        return turned_round(pixels, place.white)

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        super().close()
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = None


class PagedTiff(TiffStack):
    """Reads and decodes page by page."""

    def __init__(
        self,
        info: StackInfo,
        source: str,
        shape: tuple[int, ...],
        n_lead: int,
        place: Pages,
        key: TiffPage,
        transform: Any,
    ) -> None:
        super().__init__(info, source, shape, n_lead, key)
        self._place = place
        self._transform = transform
        self._lock = threading.Lock()
        self._open: dict[int, TiffFile] = {}
        self._window_lock = threading.Lock()
        self._last_page: tuple[int, TiffPage] | None = None

    def lacks(self, ts: range, zs: range) -> bool:
        """See `Stack.lacks`."""
        wanted = {"T": slice(ts.start, ts.stop), "Z": slice(zs.start, zs.stop)}
        at = tuple(wanted.get(axis, slice(None)) for axis in self._map.source[: len(self._lead)])
        return bool(self._place.absent.reshape(self._lead)[at].any())

    @property
    def files(self) -> frozenset[str]:
        """See `Stack.files`."""
        files = frozenset(os.path.realpath(file) for file in self._place.files)
        return files if len(files) > 1 else frozenset()

    def _unit(self, n: int) -> NDArray[Any]:
        if self._place.pixels[n]:
            return self._raw(n, tuple(slice(0, size) for size in self._place.unit_shape))
        with tifffile_messages():
            page = self._page(n)
            check_page(page, page.parent.filehandle.size)
            check_pictures(page)
            pixels = page.asarray(maxworkers=1, buffersize=_READ_AT_ONCE)
        if self._transform is not None:
            pixels = self._transform(pixels)
        pixels = self._bright(page, self._checked(n, pixels))
        return pixels.reshape(self._place.unit_shape)

    def _part(self, n: int, part: tuple[slice, ...]) -> NDArray[Any]:
        if self._place.pixels[n]:
            return self._raw(n, part)
        with self._window_lock:  # a page of many tiles takes long to parse: the last one is kept
            if self._last_page is None or self._last_page[0] != n:
                self._last_page = None
                with tifffile_messages():
                    self._last_page = (n, self._page(n))
            page = self._last_page[1]
        with tifffile_messages():
            pixels = self._checked(n, page_part(page, self._place.unit_shape, part))
        return self._bright(page, pixels)

    def _raw(self, n: int, part: tuple[slice, ...]) -> NDArray[Any]:
        """Unpacked pixels by their place in the file."""
        place = self._place
        with self._lock:
            file = self._opened(int(place.file[n])).filehandle
            with file.lock:
                start = int(place.pixels[n])
                pixels = read_part(file, start, place.unit_shape, place.dtype, part)
        if pixels is None:
            raise self._truncated(n)
        return turned_round(pixels, place.white)

    def _bright(self, page: TiffPage, pixels: NDArray[Any]) -> NDArray[Any]:
        """Pixels turned round where 0 is white, page by page: some may say so and others not."""
        return pixels if self._place.exact else turned_round(pixels, white_of(page))

    def _checked(self, n: int, pixels: NDArray[Any]) -> NDArray[Any]:
        expected = self._place.dtype.newbyteorder("=")
        if pixels.dtype.newbyteorder("=") != expected:
            raise FrameError(
                f"{self.info.path}: page {n} has pixels of type {pixels.dtype}, "
                f"the others of {expected}"
            )
        return pixels

    def _page(self, n: int) -> TiffPage:
        """Parse the directory of page `n`; the lock guards the position of the file."""
        from tifffile import TiffPage

        if not self._place.directory[n]:
            raise FrameError(
                f"{self.info.path}: page {n} is missing from the file, which may be truncated"
            )
        with self._lock:
            tif = self._opened(int(self._place.file[n]))
            with tif.filehandle.lock:
                tif.filehandle.seek(int(self._place.directory[n]))
                page = TiffPage(tif, index=n)
        if page.shape != self._place.page_shape:
            raise FrameError(
                f"{self.info.path}: page {n} has shape {page.shape}, "
                f"the others have {self._place.page_shape}"
            )
        return page

    def _opened(self, which: int) -> TiffFile:
        """A file of the stack, by its number in `Pages.files`; called under the lock."""
        from tifffile import TiffFile

        if which not in self._open:
            tif = TiffFile(self._place.files[which])
            tif.filehandle.set_lock(True)
            self._open[which] = tif
        return self._open[which]

    def close(self) -> None:
        """Close the files; a later read opens them again."""
        super().close()
        with self._window_lock:
            self._last_page = None
        with self._lock:
            for tif in self._open.values():
                tif.close()
            self._open.clear()
