"""Files and folders that are there whole or not at all: put into place when done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import OutputError
from engine.store.claim import check_writable
from engine.store.local_store import write_error


def check_free(path: Path, *, overwrite: bool) -> None:
    """OutputError where nothing can be written, or what is there may not be written over."""
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: is there already; give another name, or --overwrite")
    check_writable(path.parent)


def check_file(path: Path, *, overwrite: bool = True) -> None:
    """OutputError where no file can be written at `path`."""
    if path.exists() and not path.is_file():  # a device would be replaced, too
        raise OutputError(f"{path}: is a folder or a device; give the name of a file")
    check_free(path, overwrite=overwrite)


@contextmanager
def whole_file(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """A name to write to; the file gets its own name once it is whole, and leaves nothing else."""
    check_file(path, overwrite=overwrite)
    partial = _sibling(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise write_error(error, path) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, pattern: str, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write to, which gets its own name once all is in it.

    With `overwrite` an earlier one is replaced, but only one whose files all match `pattern`:
    nothing is removed that such a folder does not hold. Where it cannot be replaced it stays.
    """
    check_free(path, overwrite=overwrite)
    if path.is_symlink():
        raise OutputError(f"{path}: is a link; give another --output")
    if path.exists() and not _holds_only(path, pattern):
        raise OutputError(f"{path}: holds more than {pattern}; give another --output")
    partial = _sibling(path)
    try:
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            _exchange(path, partial)
        else:
            partial.replace(path)
    except OSError as error:
        raise write_error(error, path) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _exchange(path: Path, partial: Path) -> None:
    """Put a folder in the place of an earlier one, which is removed last of all."""
    earlier = _sibling(path, "earlier")
    path.replace(earlier)
    try:
        partial.replace(path)
    except BaseException:
        earlier.replace(path)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def _sibling(path: Path, what: str = "partial") -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{what}")


def _holds_only(folder: Path, pattern: str) -> bool:
    return folder.is_dir() and all(e.is_file() and e.match(pattern) for e in folder.iterdir())


def frame_name(axes: str, t: int, z: int) -> str:
    """A frame's part of a file name: t0012, z003 or t0012_z003, as its stack has axes."""
    parts = [f"{a.lower()}{n:0{w}d}" for a, n, w in (("T", t, 4), ("Z", z, 3)) if a in axes]
    return "_".join(parts) or "frame"


def picture_name(stack: str, axes: str, t: int, z: int) -> str:
    """Name of a file of one frame of a stack, without its suffix."""
    flat = stack.replace("/", "__")
    return f"{flat}_{frame_name(axes, t, z)}" if set(axes) & {"T", "Z"} else flat
