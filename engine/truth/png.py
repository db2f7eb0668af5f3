"""PNG as the numbers in it: indices and small grey values, before any decoder interprets them.

libpng, as most programs use it, turns indices into colours and stretches grey values of 1, 2 and
4 bits to 8. Here the header of an indexed image is changed to grey, so that decoding it gives the
indices; stretched values divide exactly.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

GREY, INDEXED = 0, 3  # types of colour
BARE = (b"IHDR", b"IDAT", b"IEND")  # neither a palette nor a colour that is to be transparent


def read_png(data: bytes) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """The numbers of a PNG and its palette, None where it has none.

    Numbers are (Y, X), or (Y, X, samples) of a colour picture or with an alpha channel: uint8,
    uint16, or bool for grey of 1 bit. A palette is (colours, 3). Raises ValueError, or what
    imagecodecs does, where the file is damaged.
    """
    import imagecodecs

    chunks = list(_chunks(data))
    if not chunks or chunks[0].name != b"IHDR" or len(chunks[0].content) != 13:
        raise ValueError("its header is damaged")
    if not all(chunk.is_whole for chunk in chunks if chunk.name in (b"IHDR", b"PLTE")):
        raise ValueError("its header or palette is damaged")  # libpng looks at neither as it was
    depth, colour = chunks[0].content[8:10]
    palette = _palette(chunks) if colour == INDEXED else None
    bare = [_as_grey(c) if c.name == b"IHDR" else c for c in chunks if c.name in BARE]
    pixels = np.asarray(imagecodecs.png_decode(data[:8] + b"".join(c.as_bytes() for c in bare)))
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if depth < 8:
        pixels = pixels // (255 // (2**depth - 1))
    return (pixels.astype(np.bool_) if (depth, colour) == (1, GREY) else pixels), palette


class _Chunk(NamedTuple):
    name: bytes
    content: bytes
    checksum: int

    @property
    def is_whole(self) -> bool:
        return zlib.crc32(self.name + self.content) == self.checksum

    def as_bytes(self) -> bytes:
        size, checksum = (struct.pack(">I", n) for n in (len(self.content), self.checksum))
        return size + self.name + self.content + checksum


def _chunks(data: bytes) -> Iterator[_Chunk]:
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        checksum = int.from_bytes(data[end : end + 4])
        yield _Chunk(data[at + 4 : at + 8], data[at + 8 : end], checksum)
        at = end + 4


def _as_grey(header: _Chunk) -> _Chunk:
    """The header with indices declared as grey values."""
    content = header.content
    if content[9] != INDEXED:
        return header
    content = content[:9] + bytes([GREY]) + content[10:]
    return _Chunk(header.name, content, zlib.crc32(header.name + content))


def _palette(chunks: Iterable[_Chunk]) -> NDArray[np.uint8]:
    entries = next((c.content for c in chunks if c.name == b"PLTE"), b"")
    return np.frombuffer(entries[: len(entries) // 3 * 3], np.uint8).reshape(-1, 3)
