"""Label images of every kind, as files, written byte by byte where no library writes them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

GREY, RGB, INDEXED = 0, 2, 3  # types of colour in a PNG


def png(
    numbers: NDArray[Any],
    depth: int = 8,
    colour: int = GREY,
    palette: bytes = b"",
    trns: bytes = b"",
) -> bytes:
    """A PNG of these very numbers, (Y, X) or (Y, X, samples), at `depth` bits a sample."""
    height, width = numbers.shape[:2]
    flat = numbers.reshape(height, -1).astype(">u2")
    bits = np.unpackbits(flat.view(np.uint8).reshape(height, -1, 2), axis=2)[:, :, 16 - depth :]
    rows = np.packbits(bits.reshape(height, -1), axis=1)
    content = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), (b"PLTE", palette), (b"tRNS", trns)]
    parts += [(b"IDAT", zlib.compress(content)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
        if data or name == b"IEND"
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def colours(count: int) -> bytes:
    """A palette whose colours say nothing of their index: black first, as VOC has it, then any."""
    palette = np.random.default_rng(0).integers(0, 256, (count, 3), np.uint8)
    palette[0] = 0
    palette[1::2, 0] = 0  # no red, which is what a reader of the red channel takes for background
    return palette.tobytes()


def tiff(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    """A TIFF, plain where nothing else is said."""
    told: dict[str, Any] = {"photometric": "minisblack", "metadata": None}
    tifffile.imwrite(path, pixels, **told | options)
    return path
