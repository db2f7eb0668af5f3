"""LZW pages by libtiff: as a TIFF of one page in memory, decoded by one call without the GIL.

It takes half of the time that strips take one by one (benchmarks/results/stages.md): most
are a few rows. Whatever libtiff refuses is left to that way, which knows what to say of it.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tifffile import TiffPage

LZW = 5  # code of compression
MOST_PACKED = 2**25  # bytes; larger pages are read in windows
_SHORT, _LONG = 3, 4  # types of tags
_FORMATS = {"u": 1, "i": 2, "f": 3}


def packed_bytes(page: TiffPage) -> int:
    """Bytes of the strips or tiles of a page that is decoded here as a whole; 0: it is not."""
    simple = (
        page.compression == LZW
        and page.predictor in (1, 2)
        and page.fillorder == 1
        and page.samplesperpixel == 1
        and page.shaped[:2] == (1, 1)
        and page.dtype is not None
        and page.dtype.kind in _FORMATS
        and page.bitspersample == 8 * page.dtype.itemsize
        and not (page.is_subsampled or page.jpegheader)
    )
    n = math.prod(page.chunked)
    offsets, counts = page.dataoffsets[:n], page.databytecounts[:n]
    if not simple or len(counts) < n or len(offsets) < n or not all(counts) or not all(offsets):
        return 0
    total = sum(counts)
    return total if total <= MOST_PACKED else 0


def decoded(page: TiffPage) -> NDArray[Any] | None:
    """All pixels of a page with `packed_bytes`, (Y, X); None where libtiff refuses them."""
    import imagecodecs

    data = _one_page(page, packed_bytes(page))
    if data is None:
        return None
    try:
        pixels: NDArray[Any] = imagecodecs.tiff_decode(data)
    except (imagecodecs.TiffError, ValueError, RuntimeError):
        return None
    expected = page.shaped[2:4]
    is_whole = pixels.shape == expected and pixels.dtype == np.dtype(page.dtype).newbyteorder("=")
    return pixels if is_whole else None


def _one_page(page: TiffPage, total: int) -> bytearray | None:
    """A TIFF of this page alone, its strips or tiles as they are; None where the file ends."""
    order = page.parent.byteorder
    n = math.prod(page.chunked)
    height, width = page.shaped[2:4]
    if page.is_tiled:
        segment = [(322, _LONG, page.tilewidth), (323, _LONG, page.tilelength)]
        places, sizes = 324, 325
    else:
        segment = [(278, _LONG, min(page.rowsperstrip, height))]
        places, sizes = 273, 279
    tags = [
        (256, _LONG, width), (257, _LONG, height), (258, _SHORT, page.bitspersample),
        (259, _SHORT, LZW), (262, _SHORT, 1), (277, _SHORT, 1), (284, _SHORT, 1),
        (317, _SHORT, page.predictor), (339, _SHORT, _FORMATS[np.dtype(page.dtype).kind]), *segment,
        (places, _LONG, None), (sizes, _LONG, None),
    ]  # fmt: skip
    begin = 8 + 2 + 12 * len(tags) + 4  # of the lists of places and sizes, then of the data
    counts = np.array(page.databytecounts[:n], dtype=f"{order}u4")
    starts = np.cumsum(counts) - counts + begin + 8 * n
    lists = {places: (starts.astype(f"{order}u4"), begin), sizes: (counts, begin + 4 * n)}
    head = [b"II" if order == "<" else b"MM", struct.pack(f"{order}HIH", 42, 8, len(tags))]
    for code, kind, value in sorted(tags, key=lambda tag: tag[0]):
        head.append(struct.pack(f"{order}HHI", code, kind, n if value is None else 1))
        if value is None:  # a single value stands in the tag itself
            values, at = lists[code]
            value = at if n > 1 else int(values[0])
        head.append(
            struct.pack(f"{order}HH" if kind == _SHORT else f"{order}I", *_cell(kind, value))
        )
    head += [bytes(4), lists[places][0].tobytes(), lists[sizes][0].tobytes()]
    data = bytearray(begin + 8 * n + total)
    data[: begin + 8 * n] = b"".join(head)
    return data if _read_all(page, n, memoryview(data)[begin + 8 * n :]) else None


def _cell(kind: int, value: int) -> tuple[int, ...]:
    return (value, 0) if kind == _SHORT else (value,)


def _read_all(page: TiffPage, n: int, memory: memoryview) -> bool:
    """Read all strips or tiles, those that follow each other at once; False: the file ends."""
    offsets, counts = page.dataoffsets[:n], page.databytecounts[:n]
    file, at, i = page.parent.filehandle, 0, 0
    while i < n:
        size, begin = counts[i], i
        i += 1
        while i < n and offsets[i] == offsets[begin] + size:
            size += counts[i]
            i += 1
        with file.lock:
            file.seek(offsets[begin])
            while size:  # one call reads at most 2 GB, and may read less
                rest: Any = memory[at : at + size]
                got = file.readinto(rest)
                if not got:
                    return False
                at, size = at + got, size - got
    return True
