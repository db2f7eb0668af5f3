"""Windows of one TIFF page: only the strips or tiles that they touch are decoded.

tifffile gives every page five dimensions, and numbers its segments (strips, tiles) in C order of
a grid over them:

    sample, where samples lie apart | depth | length | width | sample, where they lie together

A window comes in the dimensions of the stack: the same ones, without those of length 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.stacks.base import StackInfo
from engine.stacks.runs import read_part
from engine.stacks.tiff.page import JPEG, check_page, check_picture, check_pictures

if TYPE_CHECKING:
    from tifffile import TiffPage

_PARSED = 160  # bytes that a parsed page keeps for each segment: two numbers, and their places


def storage(
    info: StackInfo, letters: str, shape: Sequence[int], page: TiffPage, *, whole: bool
) -> StackInfo:
    """`info` with how pixels are stored; `letters` and `shape` are those of a page in the stack.

    With `whole`, something is done to each page as a whole, and there are no pieces.
    """
    dtype = np.dtype(page.dtype)
    segment = _segment(page)
    packed, unpacked = max(page.databytecounts, default=0), math.prod(segment) * dtype.itemsize
    info = replace(
        info,
        stored_bytes=dtype.itemsize,
        unit_channels=info.size("C") if "C" in letters else 1,
        piece_bytes=packed + unpacked,  # beside the page
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
    taken = packed + 2 * unpacked + _PARSED * len(page.dataoffsets)
    return replace(info, piece=(sides["Y"], sides["X"]), piece_bytes=taken)


def page_part(page: TiffPage, shape: Sequence[int], part: Sequence[slice]) -> NDArray[Any]:
    """`pixels[part]`, for the pixels of `page` in `shape`; may raise anything.

    `part` has a slice with both ends for each dimension of `shape`.
    """
    file_size = page.parent.filehandle.size
    spread = _spread(page, shape)
    if spread is None:  # no page of a stack with pieces, but for a damaged one
        check_page(page, file_size)
        check_pictures(page)
        return page.asarray(maxworkers=1).reshape(tuple(shape))[tuple(part)]
    window = [slice(0, 1) if at is None else part[at] for at in spread]
    pixels = (
        _raw_part(page, window) if page.is_contiguous else _decoded_part(page, window, file_size)
    )
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


def _raw_part(page: TiffPage, window: Sequence[slice]) -> NDArray[Any]:
    dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
    file = page.parent.filehandle
    with file.lock:
        pixels = read_part(file, page.dataoffsets[0], page.shaped, dtype, window)
    if pixels is None:
        raise ValueError("ends beyond the end of the file, which is truncated")
    return pixels


def _decoded_part(page: TiffPage, window: Sequence[slice], file_size: int) -> NDArray[Any]:
    out = np.empty([s.stop - s.start for s in window], page.dtype)
    if not out.size:
        return out
    grid, segment = _grid(page), _segment(page)
    touched = [
        range(s.start // size, -(-s.stop // size)) for s, size in zip(window, segment, strict=True)
    ]
    places = list(product(*touched))
    numbers = [int(n) for n in np.ravel_multi_index(np.transpose(places), grid)]
    check_page(page, file_size, numbers)
    with page.parent.filehandle.lock:
        page.init_decode()
    for number, place in zip(numbers, places, strict=True):
        origin = [i * size for i, size in zip(place, segment, strict=True)]
        low = [max(s.start, o) for s, o in zip(window, origin, strict=True)]
        high = [
            min(s.stop, o + size, n)
            for s, o, size, n in zip(window, origin, segment, page.shaped, strict=True)
        ]
        to = tuple(
            slice(a - s.start, b - s.start) for a, b, s in zip(low, high, window, strict=True)
        )
        pixels = _decode(page, number)
        if pixels is None:
            out[to] = page.nodata
            continue
        cut = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, origin, strict=True))
        if pixels[cut].shape != out[to].shape:
            raise ValueError(f"strip or tile {number} has too few pixels")
        out[to] = pixels[cut]
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
            raise ValueError("ends beyond the end of the file, which is truncated")
        check_picture(page, data)
    tables: dict[str, Any] = {}
    if page.compression in JPEG:  # JPEG: tables may lie apart
        tables = {"jpegtables": page.jpegtables, "jpegheader": None}
    pixels = page.decode(data, number, **tables)[0]
    return None if pixels is None else pixels[None]
