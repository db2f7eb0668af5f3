"""Is what a TIFF page claims about itself possible? Asked before a byte is allocated for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.stacks.images.coded import CLAIMS

if TYPE_CHECKING:
    from tifffile import TiffPage

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
            raise ValueError("ends beyond the end of the file, which is truncated")
        return
    expected = math.prod(page.chunked)
    found = min(len(page.dataoffsets), len(page.databytecounts))
    if found < expected:
        raise ValueError(f"has {found} of {expected} strips or tiles")
    wanted = range(found) if segments is None else segments
    packed = sparse = 0
    for i in wanted:
        offset, count = page.dataoffsets[i], page.databytecounts[i]
        if offset == 0 and count == 0 and page.is_tiled:
            sparse += 1  # the tile holds the background
            continue
        if offset <= 0 or count <= 0:
            raise ValueError("lacks the data of some strips; it was not written to its end")
        if offset + count > file_size:
            raise ValueError("ends beyond the end of the file, which is truncated")
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


def check_pictures(page: TiffPage) -> None:
    """`check_picture` for all strips or tiles of a page; reads those that are pictures."""
    if int(page.compression) in CLAIMS:
        file = page.parent.filehandle
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            with file.lock:
                file.seek(offset)
                data = file.read(count)
            check_picture(page, data)


def check_picture(page: TiffPage, data: bytes) -> None:
    """ValueError where a strip or tile is a picture that claims to be far larger than that.

    Such decoders take the size from the picture, whatever the page says.
    """
    claim = CLAIMS.get(int(page.compression))
    samples = page.samplesperpixel if page.planarconfig == 2 else 1
    allowed = 8 * math.prod(page.chunks) * samples + 65_536
    claimed = (claim(data) if claim is not None else 0) or 0
    if claimed > allowed:
        raise ValueError(f"a strip or tile holds a picture of {claimed} bytes, far beyond its size")
