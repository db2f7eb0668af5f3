"""A folder of single-frame images in natural order, and one PNG or JPEG by itself."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError, StackError
from engine.stacks.axes import source_axes
from engine.stacks.base import AxesMap, Stack, StackInfo, check_axes, read_dtype
from engine.stacks.guard import opening, tifffile_messages
from engine.stacks.units import UnitStack

KINDS = {
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
}
# The most bytes of pixels that one byte of file can turn into.
_EXPANSION = {"PNG": 1100, "JPEG": 1000}


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key in which t2 comes before t10; digits sort before letters."""
    parts = re.split(r"([0-9]+)", name.casefold())
    key = [(0, int(p), p) if i % 2 else (1, 0, p) for i, p in enumerate(parts) if p]
    return [*key, (2, 0, name)]


def list_images(folder: str) -> list[Path]:
    """The images of a folder in natural order, all of one kind; StackError where that fails.

    Where kinds are mixed, the kind with several files is the stack and a single file of another
    kind is a picture beside it; two kinds with several files each are ambiguous.
    """
    kinds: dict[str, list[Path]] = {}
    with opening(folder):
        for entry in Path(folder).iterdir():
            kind = KINDS.get(entry.suffix.lower())
            if kind and not entry.name.startswith(".") and entry.is_file():
                kinds.setdefault(kind, []).append(entry)
    if not kinds:
        raise StackError(f"{folder}: is a folder without TIFF, PNG or JPEG images; give another")
    several = [kind for kind, files in kinds.items() if len(files) > 1]
    if len(kinds) > 1 and len(several) != 1:
        counts = " and ".join(f"{len(f)} {kind}" for kind, f in sorted(kinds.items()))
        raise StackError(f"{folder}: holds {counts} images; put one kind into a folder of its own")
    chosen = several[0] if several else next(iter(kinds))
    return sorted(kinds[chosen], key=lambda p: natural_key(p.name))


def open_folder(path: str, axes: str | None = None) -> Stack:
    """A folder as a stack: one file per frame along T, or along the first letter of `axes`."""
    with opening(path):
        files = list_images(path)
        first, letters, dtype = _probe(files[0])
        shape = (len(files), *first.shape)
        source = _folder_axes(letters, shape, path, axes)
        canonical, sizes = AxesMap(source).canonical(shape)
        info = StackInfo(
            path=path,
            format="images",
            axes=canonical,
            shape=sizes,
            dtype=read_dtype(dtype, path),
            identity=_folder_identity(files),
        )
        return _Images(info, source, shape, 1, files, dtype)


def _folder_axes(letters: str, shape: tuple[int, ...], path: str, given: str | None) -> str:
    """One letter for the files, then those of a file; the order inside a file is its own."""
    if given is None:
        return "T" + letters
    if len(given) == len(letters) and shape[0] == 1:
        given = "_" + given
    elif len(given) == len(shape):
        check_axes(given, len(shape), path)
    if sorted(given[1:]) != sorted(letters) or len(given) != len(shape):
        raise StackError(
            f"{path}: --axes {given} does not fit a folder whose files have axes {letters}; "
            f"give --axes T{letters} or --axes Z{letters}"
        )
    return given[0] + letters


def open_image(path: str, axes: str | None = None) -> Stack:
    """One PNG or JPEG as a stack of a single frame."""
    with opening(path):
        pixels, letters, dtype = _probe(Path(path))
        source = source_axes(letters, pixels.shape, path, axes)
        canonical, sizes = AxesMap(source).canonical(pixels.shape)
        stat = Path(path).stat()
        info = StackInfo(
            path=path,
            format="images",
            axes=canonical,
            shape=sizes,
            dtype=read_dtype(dtype, path),
            identity=f"{stat.st_size}:{stat.st_mtime_ns}",
        )
        return _Images(info, source, pixels.shape, 0, [Path(path)], dtype)


def _probe(file: Path) -> tuple[NDArray[Any], str, np.dtype[Any]]:
    """The first image, its axes and its dtype: the others must be like it."""
    try:
        pixels, letters = read_image(file)
    except FrameError as error:
        raise StackError(str(error)) from error
    return pixels, letters, pixels.dtype


def _folder_identity(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


class _Images(UnitStack):
    """Reads one file per unit; nothing stays open."""

    def __init__(
        self,
        info: StackInfo,
        source: str,
        shape: tuple[int, ...],
        n_lead: int,
        files: list[Path],
        dtype: np.dtype[Any],
    ) -> None:
        super().__init__(info, source, shape, n_lead)
        self._files = files
        self._dtype = dtype

    def _unit(self, n: int) -> NDArray[Any]:
        pixels, _ = read_image(self._files[n])
        if pixels.shape != self._unit_shape or pixels.dtype != self._dtype:
            raise FrameError(
                f"{self._files[n]}: is {_describe(pixels.shape, pixels.dtype)}, "
                f"the first image is {_describe(self._unit_shape, self._dtype)}"
            )
        return pixels


def _describe(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    return f"{'x'.join(map(str, shape))} {dtype}"


def read_image(file: Path) -> tuple[NDArray[Any], str]:
    """Pixels of a single-frame image and its axes, "YX" or "YXC" (or "CYX" for planar TIFF).

    Raises FrameError or StackError where the file is not one whole image.
    """
    with file.open("rb") as stream:
        head = stream.read(8)
    kind = sniff(head)
    if kind == "TIFF":
        return _read_tiff(file)
    if kind in ("PNG", "JPEG"):
        return _read_coded(file, kind)
    raise FrameError(f"{file}: {not_an_image(file, head)}")


def sniff(head: bytes) -> str | None:
    """ "TIFF", "PNG", "JPEG" or None, from the first 8 bytes of a file."""
    from engine.stacks.tiffchain import is_tiff

    if is_tiff(head):
        return "TIFF"
    if head == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    return "JPEG" if head[:3] == b"\xff\xd8\xff" else None


def not_an_image(file: Path, head: bytes) -> str:
    """The rest of the sentence about a file that starts with none of the known signatures."""
    if not head:
        return "is empty; copy or write it again"
    kind = KINDS.get(file.suffix.lower())
    if kind:
        return f"is named like a {kind} file, but holds something else; check where it comes from"
    return "is none of TIFF, PNG, JPEG and Zarr; convert it to one of them"


def _read_tiff(file: Path) -> tuple[NDArray[Any], str]:
    from engine.stacks.tiff import open_tiff

    with open_tiff(str(file), multifile=False) as stack:
        info = stack.info
        if info.n_frames != 1:
            raise FrameError(
                f"{file}: holds {info.n_frames} frames, but a folder has one frame per file; "
                "give such files one by one"
            )
        frame = stack.read(0, 0, range(info.size("C")))
    return (frame, "CYX") if "C" in info.axes else (frame[0], "YX")


def _read_coded(file: Path, kind: str) -> tuple[NDArray[Any], str]:
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
