"""The image behind a frame's labels, to be drawn under them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engine.errors import StackError
from engine.results.planes import Number
from engine.results.score.comparison import FrameScore
from engine.results.score.files import numbered
from engine.stacks.images.files import list_images
from engine.stacks.open import open_stack
from engine.stacks.zarr.metadata import is_zarr


def background(frame: FrameScore, plane: int = 0, image: str | None = None) -> NDArray[Any]:
    """The pixels of a frame, (Y, X): of `image`, or of what its job recorded as input.

    `plane` counts the planes of a volume. Raises StackError where there is no such frame, or it
    cannot be read.
    """
    pair, ours = frame.pairs[plane], frame.sides.ours
    if image is None:
        if ours.origin is None:
            raise StackError(f"{ours.path}: has no record of its image; give --image")
        source, axes = ours.origin.input, ours.origin.job.report.settings.axes
        return _read(source.path, pair.ours, axes, source.channels[0], source.series or None)
    if Path(image).is_dir() and not is_zarr(Path(image)):
        return _read(str(_file_of(frame, list_images(image), image)), (0, pair.number[1]))
    return _read(image, pair.ours)


def _file_of(frame: FrameScore, files: list[Path], folder: str) -> Path:
    """The image of a frame in a folder: by name, by number, else by order."""
    names = {Path(frame.name).stem if frame.name else frame.stack, Path(frame.stack).name}
    by_number = numbered(files) or {(i, 0): file for i, file in enumerate(files)}
    named = (file for file in files if file.stem in names)
    found = next(named, by_number.get((frame.number[0], 0)))
    if found is None:
        raise StackError(f"{folder}: has no image of frame {frame.number[0]}")
    return found


def _read(
    path: str,
    number: Number,
    axes: str | None = None,
    channel: int = 0,
    series: str | None = None,
) -> NDArray[Any]:
    with open_stack(path, axes, series) as stack:
        info = stack.info
        t, z = number if "T" in info.axes or "Z" not in info.axes else (0, number[0])
        t, z = (at if info.size(axis) > 1 else 0 for at, axis in ((t, "T"), (z, "Z")))
        if t >= info.size("T") or z >= info.size("Z"):
            raise StackError(f"{path}: has no frame {number[0]}")
        frame: NDArray[Any] = stack.read(t, z, (min(channel, info.size("C") - 1),))[0]
        return frame
