"""PNG and JPEG: what they claim is checked against their size before they are decoded."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError
from engine.stacks.guard import tifffile_messages

# The most bytes of pixels that one byte of file can turn into.
_EXPANSION = {"PNG": 1100, "JPEG": 1000}


def read_coded(file: Path, kind: str) -> tuple[NDArray[Any], str]:
    """Pixels of a PNG or JPEG and their axes, "YX" or "YXC"; FrameError where it is damaged."""
    import imagecodecs

    data = file.read_bytes()
    claimed = _PIXELS[kind](data)
    if claimed is None or claimed > len(data) * _EXPANSION[kind] + 4096:
        raise FrameError(f"{file}: is truncated or damaged; copy or write it again")
    decode = imagecodecs.png_decode if kind == "PNG" else imagecodecs.jpeg_decode
    with tifffile_messages():
        try:
            pixels = np.asarray(decode(data))
        except Exception as error:
            raise FrameError(
                f"{file}: is a {kind} file that cannot be decoded; copy or write it again"
            ) from error
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    return pixels, "YXC" if pixels.ndim == 3 else "YX"


def _png_bytes(data: bytes) -> int | None:
    """Bytes of pixels that a PNG header claims, None for a damaged one."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        return None
    width, height, depth, color = struct.unpack(">IIBB", data[16:26])
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(color)
    if samples is None or 0 in (width, height):
        return None
    row: int = (width * samples * depth + 7) // 8
    return row * int(height)


def _jpeg_bytes(data: bytes) -> int | None:
    """Bytes of pixels that a JPEG header claims, None for a damaged or truncated file."""
    at = 2
    while at + 10 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 0x01:  # no length follows
            at += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            height, width, samples = struct.unpack(">HHB", data[at + 5 : at + 10])
            if data.find(b"\xff\xd9", at) < 0:  # no end: libjpeg would fill the rest with grey
                return None
            return int(width) * int(height) * int(samples) or None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


_PIXELS: dict[str, Callable[[bytes], int | None]] = {"PNG": _png_bytes, "JPEG": _jpeg_bytes}
