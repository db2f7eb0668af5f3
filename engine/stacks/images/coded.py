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

INKS = "its channels are inks (CMYK), not red, green and blue"
# The most bytes of pixels that one byte of file can turn into.
_EXPANSION = {"PNG": 1100, "JPEG": 1000}
_PNG_SIDE = 1_000_000  # px; libpng takes no more
_INDEXED = 3  # type of colour in a PNG: indices of a palette
_MAX_MARKERS = 10_000  # before the header of a JPEG's frame
_HEAD = 1 << 18  # bytes that hold the size of almost any PNG or JPEG


def read_coded(file: Path, kind: str, *, greys: bool = True) -> tuple[NDArray[Any], str]:
    """Pixels of a PNG or JPEG and their axes, "YX" or "YXC"; FrameError where it is damaged.

    With `greys`, a PNG that is indexed by a palette of nothing but greys has one channel.
    """
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
    if pixels.ndim == 3 and (pixels.shape[-1] == 1 or (greys and kind == "PNG" and _is_grey(data))):
        pixels = pixels[..., 0]
    return pixels, "YXC" if pixels.ndim == 3 else "YX"


def claimed_size(file: Path, kind: str) -> tuple[int, int] | None:
    """Height and width that the header of a PNG or JPEG claims, None where it is damaged."""
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    if kind == "JPEG":
        frame = _jpeg_frame(head)
        return frame and frame[:2]
    if len(head) < 33 or head[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", head[16:24])
    return int(height), int(width)


def further_frames(file: Path) -> int:
    """How many frames an animated PNG has beyond its first; 0 for any other file."""
    with file.open("rb") as stream:
        if stream.read(8) != b"\x89PNG\r\n\x1a\n":
            return 0
        while len(head := stream.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"acTL":
                return max(int.from_bytes(stream.read(4), "big") - 1, 0)
            stream.seek(length + 4, 1)
    return 0


def is_opaque(alpha: NDArray[Any]) -> bool:
    """Whether alpha is opaque everywhere: at the largest value of its dtype, 1 in floats."""
    highest = 1 if alpha.dtype.kind in "fb" else np.iinfo(alpha.dtype).max
    return bool((alpha == highest).all())


def without_opaque_alpha(pixels: NDArray[Any], letters: str) -> tuple[NDArray[Any], str]:
    """Pixels and their axes without an alpha channel that is opaque everywhere.

    `letters` say which axis is C: "YXC" or "CYX", or "YX" where there is none. Alpha is the last
    of two or four channels; it is opaque at the largest value of its dtype, 1 in floats. Where one
    channel is left, its axis goes.
    """
    if "C" not in letters:
        return pixels, letters
    at = letters.index("C")
    colours, alpha = np.split(pixels, [pixels.shape[at] - 1], axis=at)
    if pixels.shape[at] in (2, 4) and is_opaque(alpha):
        pixels = colours
    if pixels.shape[at] == 1:
        return pixels.squeeze(at), letters.replace("C", "")
    return pixels, letters


def _png_bytes(data: bytes) -> int | None:
    """Bytes of pixels that a PNG header claims, None for a damaged one."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        return None
    width, height, depth, color = struct.unpack(">IIBB", data[16:26])
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(color)
    if samples is None or not (0 < width <= _PNG_SIDE and 0 < height <= _PNG_SIDE):
        return None
    row: int = (width * samples * depth + 7) // 8 + 1
    claimed = row * int(height)
    # Packing never doubles a size: more of it is unpacked for nothing, and may take for ever.
    return claimed if _png_packed(data) <= 2 * claimed + 4096 else None


def _is_grey(data: bytes) -> bool:
    """Whether a PNG is indexed by a palette of nothing but opaque shades of grey."""
    at = 8
    if data[25] != _INDEXED:
        return False
    while at + 8 <= len(data) and (name := data[at + 4 : at + 8]) not in (b"IDAT", b"tRNS"):
        length = int.from_bytes(data[at : at + 4], "big")
        if name == b"PLTE":
            entries = np.frombuffer(data[at + 8 : at + 8 + length // 3 * 3], np.uint8)
            if (entries.reshape(-1, 3) != entries[::3, None]).any():
                return False
        at += 12 + length
    return name == b"IDAT"


def _png_packed(data: bytes) -> int:
    """Bytes of packed pixels in a PNG."""
    total, at = 0, 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        total += length if data[at + 4 : at + 8] == b"IDAT" else 0
        at += 12 + length
    return total


def _jpeg_bytes(data: bytes) -> int | None:
    """Bytes of pixels that a JPEG header claims, None for a damaged or truncated file."""
    if data.rfind(b"\xff\xd9") < 0:  # no end: libjpeg would fill the rest with grey
        return None
    return jpeg_claim(data)


def jpeg_claim(data: bytes) -> int | None:
    """Bytes of pixels that the first frame header in a JPEG stream claims."""
    frame = _jpeg_frame(data)
    return (frame and frame[0] * frame[1] * frame[2]) or None


def _jpeg_frame(data: bytes) -> tuple[int, int, int] | None:
    """Height, width and channels in the first frame header of a JPEG stream."""
    at = 2
    for _ in range(_MAX_MARKERS):
        if at + 10 > len(data) or data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 0x01:  # no length follows
            at += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            height, width, samples = struct.unpack(">HHB", data[at + 5 : at + 10])
            return int(height), int(width), int(samples)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def jpeg2000_claim(data: bytes) -> int | None:
    """Bytes of pixels that the size marker of a JPEG 2000 stream claims, at a byte a sample."""
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0 or at + 42 > len(data):
        return None
    right, bottom, left, top = struct.unpack(">IIII", data[at + 8 : at + 24])
    samples = int.from_bytes(data[at + 40 : at + 42], "big")
    return max(int(right) - int(left), 0) * max(int(bottom) - int(top), 0) * samples


_PIXELS: dict[str, Callable[[bytes], int | None]] = {"PNG": _png_bytes, "JPEG": _jpeg_bytes}

# Pictures within a TIFF, by its compression code.
CLAIMS: dict[int, Callable[[bytes], int | None]] = {
    6: jpeg_claim,
    7: jpeg_claim,
    33003: jpeg2000_claim,
    33004: jpeg2000_claim,
    33005: jpeg2000_claim,
    34712: jpeg2000_claim,
    34933: _png_bytes,
}
