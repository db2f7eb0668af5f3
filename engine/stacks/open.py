"""The one door to all readers: what is at a path decides who reads it, not what it is called."""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from pathlib import Path

from engine.errors import StackError, UsageError
from engine.stacks.base import Stack
from engine.stacks.guard import brief, opening

_ZARR_FILES = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")


def open_stack(path: str, axes: str | None = None) -> Stack:
    """Open the stack at `path`.

    A file is a TIFF, a PNG or a JPEG, by its first bytes; a folder is a Zarr array, an OME-Zarr
    image, or single-frame images in natural order. `axes` (letters out of TCZYX, one for each
    dimension of the source) overrides the metadata. Raises StackError, one sentence, where the
    stack cannot be opened or its axes are ambiguous.
    """
    path = str(path)
    axes = axes.upper() if axes else None
    with opening(path):
        where = Path(path)
        if where.is_dir():
            return _open_folder(path, where, axes)
        if not where.exists():
            raise StackError(f"{path}: does not exist; check the path")
        if not where.is_file():
            raise StackError(f"{path}: is neither a file nor a folder; give one of these")
        return _open_file(path, where, axes)


def _open_folder(path: str, where: Path, axes: str | None) -> Stack:
    if any((where / name).is_file() for name in _ZARR_FILES):
        from engine.stacks.zarrs import open_zarr

        return open_zarr(path, axes)
    if where.suffix.lower() == ".zarr":
        raise StackError(f"{path}: is named like a Zarr store, but holds no Zarr metadata")
    from engine.stacks.images import open_folder

    return open_folder(path, axes)


def _open_file(path: str, where: Path, axes: str | None) -> Stack:
    from engine.stacks import images

    with where.open("rb") as file:
        head = file.read(8)
    kind = images.sniff(head)
    if kind == "TIFF":
        from engine.stacks.tiff import open_tiff

        return open_tiff(path, axes)
    if kind is not None:
        return images.open_image(path, axes)
    raise StackError(f"{path}: {images.not_an_image(where, head)}")


def expand_inputs(inputs: Sequence[str]) -> list[str]:
    """Inputs as the user gave them, with every `@list.txt` replaced by what the list names.

    A list has one input per line, in UTF-8, or in UTF-16 with a byte order mark; blank lines and
    lines that start with # are skipped, and relative paths start from the folder of the list.
    Raises UsageError for a list that cannot be read or that is empty.
    """
    out: list[str] = []
    for item in inputs:
        out += _listed(item[1:]) if item.startswith("@") and len(item) > 1 else [item]
    return out


def _listed(name: str) -> list[str]:
    try:
        data = Path(name).read_bytes()
        # Windows' own programs write UTF-16, whose decoder reads the mark and takes it away.
        is_16_bit = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if is_16_bit else "utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(f"{name}: the list of inputs does not exist; check the path") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name}: the list of inputs is not text in UTF-8 or UTF-16; save it as UTF-8"
        ) from error
    except OSError as error:
        raise UsageError(f"{name}: the list of inputs cannot be read ({brief(error)})") from error
    lines = [line.strip() for line in text.splitlines()]
    paths = [line for line in lines if line and not line.startswith("#")]
    if not paths:
        raise UsageError(f"{name}: the list of inputs names none; write one input per line")
    # Unlike Path.expanduser, this leaves the name of an unknown user as it is.
    return [str(Path(name).parent / os.path.expanduser(p)) for p in paths]  # noqa: PTH111
