"""One page of a TIFF file: whether its claims are possible, and windows of its pixels.

What a page claims is checked before a byte is allocated for it. Of a window, only the strips or
tiles that it touches are decoded; pixels that lie unpacked are read run by run:

    array (rows, columns), part [1:3, 2:4]      . . . . .
    two runs of two values                      . . A A .
                                                . . B B .

Nothing is mapped into memory: where a file ends too early, reading says so. tifffile gives every
page five dimensions, and numbers its segments (strips, tiles) in C order of a grid over them:

    sample, where samples lie apart | depth | length | width | sample, where they lie together

A window comes in the dimensions of the stack: the same ones, without those of length 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from operator import mul
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.stacks.base import SKIP, StackInfo
from engine.stacks.images.coded import CLAIMS
from engine.stacks.tiff import lzw

if TYPE_CHECKING:
    from io import FileIO

    from tifffile import FileHandle, TiffPage

JPEG = (6, 7, 33007, 34892)  # codes of compression: old and new, and with other names
# The most bytes that one packed byte can turn into, by TIFF compression code; generous.
_EXPANSION = {
    1: 1,
    5: 4096,  # LZW: a code of 12 bits stands for up to 4,096 bytes
    8: 1100,  # deflate: 1,032
    32946: 1100,
    32773: 128,  # PackBits
    6: 1000,  # JPEG: a block of 64 pixels takes 6 bits or more
    7: 1000,
}
_EXPANSION_OTHER = 50_000  # zstd, LZMA, fax: long runs take next to nothing
_PARSED = 160  # bytes that a parsed page keeps for each segment: two numbers, and their places
_READ_AT_ONCE = 1  # bytes, so: a strip or tile; tifffile would hold all those of a page, twice
_TRUNCATED = "ends beyond the end of the file, which is truncated"


# -- what a page claims ----------------------------------------------------------------------------


def check_page(page: TiffPage, file_size: int, segments: Sequence[int] | None = None) -> None:
    """ValueError, as the rest of a sentence, where the page's pixels cannot all be in the file.

    `segments` are the strips or tiles that are wanted, by number; all of them by default.
    """
    if 0 in page.shape or not page.shape:
        raise ValueError("has no pixels")
    if not page.is_tiled and page.rowsperstrip < 1:
        raise ValueError("has strips without rows")
    if page.is_contiguous:
        if not page.dataoffsets or page.dataoffsets[0] + page.nbytes > file_size:
            raise ValueError(_TRUNCATED)
        return
    expected = math.prod(page.chunked)
    found = min(len(page.dataoffsets), len(page.databytecounts))
    if found < expected:
        raise ValueError(f"has {found} of {expected} strips or tiles")
    packed = sparse = 0
    for i in range(found) if segments is None else segments:
        offset, count = page.dataoffsets[i], page.databytecounts[i]
        if offset == 0 and count == 0 and page.is_tiled:
            sparse += 1  # the tile holds the background
            continue
        if offset <= 0 or count <= 0:
            raise ValueError("lacks the data of some strips; it was not written to its end")
        if offset + count > file_size:
            raise ValueError(_TRUNCATED)
        packed += count
    if page.compression == 1 or page.dtype is None:
        return
    piece = math.prod(page.chunks) * page.dtype.itemsize
    claimed = page.nbytes if segments is None else min(page.nbytes, len(segments) * piece)
    expansion = _EXPANSION.get(int(page.compression), _EXPANSION_OTHER)
    if claimed > packed * expansion + sparse * piece:
        raise ValueError(
            f"claims {claimed} bytes of pixels, more than {packed} packed bytes can hold"
        )


def whole_page(page: TiffPage) -> NDArray[Any]:
    """All pixels of a page, as tifffile gives them; may raise anything."""
    check_page(page, page.parent.filehandle.size)
    if int(page.compression) in CLAIMS:
        file = page.parent.filehandle
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            with file.lock:
                file.seek(offset)
                data = file.read(count)
            _check_picture(page, data)
    return page.asarray(maxworkers=1, buffersize=_READ_AT_ONCE)


def _check_picture(page: TiffPage, data: bytes) -> None:
    """ValueError where a strip or tile is a picture that claims to be far larger than that.

    Such decoders take the size from the picture, whatever the page says.
    """
    claim = CLAIMS.get(int(page.compression))
    samples = page.samplesperpixel if page.planarconfig == 2 else 1
    allowed = 8 * math.prod(page.chunks) * samples + 65_536
    claimed = (claim(data) if claim is not None else 0) or 0
    if claimed > allowed:
        raise ValueError(f"a strip or tile holds a picture of {claimed} bytes, far beyond its size")


# -- windows ---------------------------------------------------------------------------------------


def storage(
    info: StackInfo, letters: str, shape: Sequence[int], page: TiffPage, *, whole: bool
) -> StackInfo:
    """`info` with how pixels are stored; `letters` and `shape` are those of a page in the stack.

    With `whole`, something is done to each page as a whole, and there are no pieces.
    """
    dtype = np.dtype(page.dtype)
    segment = _segment(page)
    packed, unpacked = max(page.databytecounts, default=0), math.prod(segment) * dtype.itemsize
    packed = max(packed, lzw.packed_bytes(page))
    info = replace(
        info,
        stored_bytes=dtype.itemsize,
        unit_channels=info.size("C") if "C" in letters else 1,
        piece_bytes=packed + unpacked,  # in addition to the page
    )
    spread = _spread(page, shape)
    if whole or spread is None:
        return info
    if page.is_contiguous:
        return replace(info, piece=(1, info.size("X")), piece_bytes=0)
    sides = dict.fromkeys("YX", 1)
    for size, at in zip(segment, spread, strict=True):
        if at is not None and letters[at] in "YX":
            sides[letters[at]] = min(size, shape[at])
    if (sides["Y"], sides["X"]) == (info.size("Y"), info.size("X")):
        return info
    # Unpacked as bytes, and once more in native byte order or padded.
    total = packed + 2 * unpacked + _PARSED * len(page.dataoffsets)
    return replace(info, piece=(sides["Y"], sides["X"]), piece_bytes=total)


def page_part(page: TiffPage, shape: Sequence[int], part: Sequence[slice]) -> NDArray[Any]:
    """`pixels[part]`, for the pixels of `page` in `shape`; may raise anything.

    `part` has a slice with both ends for each dimension of `shape`.
    """
    file = page.parent.filehandle
    spread = _spread(page, shape)
    if spread is None:
        return whole_page(page).reshape(tuple(shape))[tuple(part)]
    window = [slice(0, 1) if at is None else part[at] for at in spread]
    if page.is_contiguous:
        dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
        with file.lock:
            pixels = read_part(file, page.dataoffsets[0], page.shaped, dtype, window)
        if pixels is None:
            raise ValueError(_TRUNCATED)
    else:
        pixels = _decoded_part(page, window)
    return pixels.reshape([s.stop - s.start for s in part])


def _spread(page: TiffPage, shape: Sequence[int]) -> list[int | None] | None:
    """For each of the page's five dimensions, which of `shape` it is; None: of length 1.

    None altogether where the page can only be decoded as a whole.
    """
    real = [i for i, n in enumerate(shape) if n != 1]
    if [n for n in page.shaped if n != 1] != [shape[i] for i in real]:
        return None
    if page.jpegheader is not None:  # of Hamamatsu: strips that are called tiles
        return None
    if page.is_contiguous:
        if page.fillorder != 1 or page.predictor != 1 or page.is_subsampled:
            return None
    elif math.prod(_grid(page)) != math.prod(page.chunked):
        return None
    left = iter(real)
    return [None if n == 1 else next(left) for n in page.shaped]


def _segment(page: TiffPage) -> tuple[int, ...]:
    """Shape of a strip or tile in the page's five dimensions."""
    if page.is_tiled:
        return (1, page.tiledepth, page.tilelength, page.tilewidth, page.shaped[4])
    return (1, 1, min(page.rowsperstrip, page.shaped[2]), page.shaped[3], page.shaped[4])


def _grid(page: TiffPage) -> list[int]:
    """Number of segments along each of the page's five dimensions."""
    return [-(-n // max(size, 1)) for n, size in zip(page.shaped, _segment(page), strict=True)]


def _decoded_part(page: TiffPage, window: Sequence[slice]) -> NDArray[Any]:
    out = np.empty([s.stop - s.start for s in window], page.dtype)
    if not out.size:
        return out
    segment, grid = _segment(page), _grid(page)
    touched = [range(s.start // n, -(-s.stop // n)) for s, n in zip(window, segment, strict=True)]
    places = list(product(*touched))
    numbers = [int(n) for n in np.ravel_multi_index(np.transpose(places), grid)]
    check_page(page, page.parent.filehandle.size, numbers)
    if out.size == math.prod(page.shaped) and lzw.packed_bytes(page):
        whole = lzw.decoded(page)
        if whole is not None:
            return whole.reshape(out.shape)
    with page.parent.filehandle.lock:
        page.init_decode()
    for number, place in zip(numbers, places, strict=True):
        target, source = [], []  # slices of the window and of the segment
        for i, size, length, s in zip(place, segment, page.shaped, window, strict=True):
            low, high = max(s.start, i * size), min(s.stop, (i + 1) * size, length)
            target.append(slice(low - s.start, high - s.start))
            source.append(slice(low - i * size, high - i * size))
        pixels = _decode(page, number)
        if pixels is None:
            out[tuple(target)] = page.nodata
        elif pixels[tuple(source)].shape != out[tuple(target)].shape:
            raise ValueError(f"strip or tile {number} has too few pixels")
        else:
            out[tuple(target)] = pixels[tuple(source)]
    return out


def _decode(page: TiffPage, number: int) -> NDArray[Any] | None:
    """One segment in the page's five dimensions; None for one that a sparse file leaves out."""
    offset, count = page.dataoffsets[number], page.databytecounts[number]
    data: bytes | None = None
    if count:
        file = page.parent.filehandle
        with file.lock:
            file.seek(offset)
            data = file.read(count)
        if len(data) != count:
            raise ValueError(_TRUNCATED)
        _check_picture(page, data)
    tables: dict[str, Any] = {}
    if page.compression in JPEG:  # its tables may lie apart
        tables = {"jpegtables": page.jpegtables, "jpegheader": None}
    pixels = page.decode(data, number, **tables)[0]
    return None if pixels is None else pixels[None]


def read_part(
    file: FileIO | FileHandle,
    offset: int,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    part: Sequence[slice],
) -> NDArray[Any] | None:
    """`array[part]`, for the array of `shape` that starts at `offset`; None: the file ends.

    `part` has a slice with both ends for each dimension. The position of `file` moves.
    """
    inner = _depth(shape, dtype.itemsize, part)
    read = [*part[: inner + 1], *(slice(0, n) for n in shape[inner + 1 :])]
    out = np.empty([s.stop - s.start for s in read], dtype)
    if out.size:
        runs = out.reshape(math.prod(out.shape[:inner]), -1)
        steps = [math.prod(shape[i + 1 :]) for i in range(inner + 1)]
        starts = product(*(range(s.start, s.stop) for s in read[:inner]), [read[inner].start])
        for run, start in zip(runs, starts, strict=True):
            file.seek(offset + sum(map(mul, start, steps)) * dtype.itemsize)
            if not _fill(file, run.view(np.uint8).data):
                return None
    return out[tuple(slice(None) if i <= inner else s for i, s in enumerate(part))]


def _depth(shape: Sequence[int], itemsize: int, part: Sequence[slice]) -> int:
    """The innermost dimension along which runs stop short of their neighbours."""
    for i in reversed(range(len(shape))):
        left_out = shape[i] - (part[i].stop - part[i].start)
        if left_out * math.prod(shape[i + 1 :]) * itemsize > SKIP:
            return i
    return 0


def _fill(file: FileIO | FileHandle, memory: memoryview) -> bool:
    """Read into all of `memory`; False where the file ends before."""
    done = 0
    while done < len(memory):  # one call reads at most 2 GB
        rest: Any = memory[done:]
        got = file.readinto(rest)
        if not got:
            return False
        done += got
    return True
