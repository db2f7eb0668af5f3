"""TIFF files written byte by byte, for tags and values that no library writes."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BYTE, ASCII, SHORT, LONG = 1, 2, 3, 4
_LETTER = {BYTE: "B", ASCII: "B", SHORT: "H", LONG: "I"}
Value = tuple[int, int | bytes | Sequence[int]]  # type, value or values


@dataclass(frozen=True)
class Page:
    """One strip of pixels and the tags beside the necessary ones; a tag of None is left out."""

    width: int
    height: int
    data: bytes
    bits: int = 8
    tags: Mapping[int, Value | None] = field(default_factory=dict)


def page(pixels: NDArray[np.unsignedinteger], tags: Mapping[int, Value | None] = {}) -> Page:
    """A page of unpacked pixels, (Y, X)."""
    height, width = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    return Page(width, height, data, 8 * pixels.itemsize, tags)


def packed(
    pixels: NDArray[np.unsignedinteger], bits: int, tags: Mapping[int, Value | None]
) -> Page:
    """A page of `bits` bits a pixel, rows padded to whole bytes."""
    every = np.unpackbits(pixels.astype(">u2").view(np.uint8).reshape(*pixels.shape, 2), axis=2)
    rows = every[..., 16 - bits :].reshape(len(pixels), -1)
    return Page(pixels.shape[1], len(pixels), np.packbits(rows, axis=1).tobytes(), bits, tags)


def write(path: Path, pages: Sequence[Page]) -> Path:
    """A little-endian classic TIFF of these pages."""
    out = bytearray(b"II*\0\0\0\0\0")
    link = 4
    for one in pages:
        at = len(out)
        out += one.data + b"\0" * (len(one.data) % 2)
        tags: dict[int, Value | None] = {
            256: (LONG, one.width), 257: (LONG, one.height), 258: (SHORT, one.bits),
            259: (SHORT, 1), 262: (SHORT, 1), 273: (LONG, at), 277: (SHORT, 1),
            278: (LONG, one.height), 279: (LONG, len(one.data)), **one.tags,
        }  # fmt: skip
        told = {tag: value for tag, value in sorted(tags.items()) if value is not None}
        start = len(out)
        end = start + 2 + 12 * len(told) + 4
        entries, beyond = struct.pack("<H", len(told)), b""
        for tag, (kind, value) in told.items():
            values = [value] if isinstance(value, int) else list(value)
            raw = struct.pack(f"<{len(values)}{_LETTER[kind]}", *values)
            place = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", end + len(beyond))
            beyond += raw + b"\0" * (len(raw) % 2) if len(raw) > 4 else b""
            entries += struct.pack("<HHI", tag, kind, len(values)) + place
        out[link : link + 4] = struct.pack("<I", start)
        link = start + len(entries)
        out += entries + b"\0\0\0\0" + beyond
    path.write_bytes(bytes(out))
    return path


def text(content: str) -> Value:
    """A tag of text."""
    return ASCII, content.encode() + b"\0"
