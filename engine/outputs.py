"""Files and folders that are there whole or not at all: put into place when done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import OutputError


def check_free(path: Path, *, overwrite: bool) -> None:
    """OutputError where something is there already that may not be written over."""
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: is there already; give another --output, or --overwrite")


@contextmanager
def whole_file(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """A name to write to; the file gets its own name once it is whole, and leaves nothing else."""
    check_free(path, overwrite=overwrite)
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give the name of a file")
    partial = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise _sentence(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, pattern: str, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write to, which gets its own name once all is in it.

    With `overwrite` an earlier one is replaced, but only one whose files all match `pattern`:
    nothing is removed that such a folder does not hold.
    """
    check_free(path, overwrite=overwrite)
    if path.exists() and not _holds_only(path, pattern):
        raise OutputError(f"{path}: holds more than {pattern}; give another --output")
    partial = _beside(path)
    try:
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
    except OSError as error:
        raise _sentence(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _holds_only(folder: Path, pattern: str) -> bool:
    return folder.is_dir() and all(e.is_file() and e.match(pattern) for e in folder.iterdir())


def _sentence(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written ({error.strerror or error})")


def frame_name(axes: str, t: int, z: int) -> str:
    """A frame's part of a file name: t0012, z003 or t0012_z003, as its stack has axes."""
    parts = [f"{a.lower()}{n:0{w}d}" for a, n, w in (("T", t, 4), ("Z", z, 3)) if a in axes]
    return "_".join(parts) or "frame"


def picture_name(stack: str, axes: str, t: int, z: int) -> str:
    """Name of a file of one frame of a stack, without its suffix."""
    flat = stack.replace("/", "__")
    return f"{flat}_{frame_name(axes, t, z)}" if set(axes) & {"T", "Z"} else flat
