"""Is what a TIFF page claims about itself possible? Asked before a byte is allocated for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tifffile import TiffPage

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


def check_page(page: TiffPage, file_size: int) -> None:
    """ValueError, as the rest of a sentence, where the page's pixels cannot all be in the file."""
    if 0 in page.shape or not page.shape:
        raise ValueError("has no pixels")
    if page.is_contiguous:
        if not page.dataoffsets or page.dataoffsets[0] + page.nbytes > file_size:
            raise ValueError("ends beyond the end of the file, which is truncated")
        return
    _check_segments(page, file_size)
    if page.compression == 1:
        return
    packed = sum(page.databytecounts)
    expansion = _EXPANSION.get(int(page.compression), _EXPANSION_OTHER)
    if page.nbytes > packed * expansion + _sparse_bytes(page):
        raise ValueError(
            f"claims {page.nbytes} bytes of pixels, more than {packed} packed bytes can hold"
        )


def _check_segments(page: TiffPage, file_size: int) -> None:
    """Every strip or tile must be there and lie within the file."""
    expected = math.prod(page.chunked)
    found = min(len(page.dataoffsets), len(page.databytecounts))
    if found < expected:
        raise ValueError(f"has {found} of {expected} strips or tiles")
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        if offset == 0 and count == 0 and page.is_tiled:
            continue  # a sparse file: the tile holds the background
        if offset == 0 or count == 0:
            raise ValueError("lacks the data of some strips; it was not written to its end")
        if offset + count > file_size:
            raise ValueError("ends beyond the end of the file, which is truncated")


def _sparse_bytes(page: TiffPage) -> int:
    """Bytes of pixels that a sparse file leaves out on purpose."""
    if not page.is_tiled or page.dtype is None:
        return 0
    tile = math.prod(page.chunks) * page.dtype.itemsize
    return tile * sum(count == 0 for count in page.databytecounts)
