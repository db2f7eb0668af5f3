"""Label images in files: TIFF and PNG, folders of them, challenge folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from engine.errors import StackError, UsageError, first_line
from engine.score.frames import LabelFrames, Number, array_frames

TIFF, PNG = (".tif", ".tiff"), (".png",)


def open_file(path: Path) -> LabelFrames:
    """Open a PNG, or a TIFF of one or more frames."""
    if path.suffix.lower() in PNG:
        return _files(path, [path])
    if path.suffix.lower() not in TIFF:
        raise StackError(f"{path}: labels are read from TIFF, PNG, Zarr and folders of them")
    with ExitStack() as opened:
        series = opened.enter_context(tifffile.TiffFile(path)).series[0]
        if series.axes.endswith("YX") and len(series.shape) > 2:
            array = zarr.open_array(series.aszarr(level=0), mode="r")
            frames = array_frames(path, array, series.axes)
            opened.pop_all()  # stays open: frames are read from it
            return frames
    return _files(path, [path])


def open_folder(path: Path) -> LabelFrames:
    """Open a folder of frames, or the SEG of a challenge folder."""
    folder = challenge_folder(path) or path
    files = label_files(folder)
    if not files:
        raise StackError(f"{path}: holds no label images (TIFF, PNG or Zarr)")
    return _files(folder, files)


def open_markers(path: Path) -> LabelFrames | None:
    """The markers (`man_trackTTT.tif`) of a challenge folder NN_GT or its TRA; None without."""
    for folder in (path, path / "TRA"):
        files = sorted(folder.glob("man_track*.tif"))
        if files:
            return _files(folder, files)
    return None


def label_files(folder: Path) -> list[Path]:
    """TIFF and PNG files of a folder in natural order."""
    return sorted(
        (f for f in folder.iterdir() if f.suffix.lower() in TIFF + PNG and not _hidden(f)),
        key=_natural,
    )


def challenge_folder(path: Path) -> Path | None:
    """The folder of man_seg*.tif that `path` stands for, if it is a challenge folder."""
    nearest_first = [path], path.glob("SEG"), path.glob("*_ST/SEG"), path.glob("*_GT/SEG")
    for folders in nearest_first:
        found = sorted(f for f in folders if any(f.glob("man_seg*.tif")))
        if len(found) > 1:
            names = ", ".join(str(f.relative_to(path)) for f in found)
            raise UsageError(f"{path}: holds several sequences, name one of {names}")
        if found:
            return found[0]
    return None


def numbered(files: Sequence[Path]) -> dict[Number, Path] | None:
    """Files by the numbers in their names; None where these do not tell all apart."""
    named: dict[Number, Path] = {}
    for file in files:
        plane = re.fullmatch(r"man_seg_(\d+)_(\d+)", file.stem)  # one plane of a 3-D truth
        t = int(plane[1]) if plane else _trailing_number(file)
        if t is not None:
            named[(t, int(plane[2]) if plane else 0)] = file
    return dict(sorted(named.items())) if len(named) == len(files) else None


def _files(path: Path, files: Sequence[Path]) -> LabelFrames:
    """Frames that are a file each, or the planes of volumes that are a file each."""
    by_name = numbered(files)
    at = by_name or {(t, 0): file for t, file in enumerate(files)}
    depth = _depth(files[0])
    places = {(t, z): (file, z) for (t, _), file in at.items() for z in range(depth)}
    if depth == 1:
        places = {number: (file, 0) for number, file in at.items()}

    @lru_cache(maxsize=1)  # the planes of a volume are read one after the other
    def read(file: Path) -> NDArray[Any]:
        try:
            labels = _read_image(file)
        except Exception as error:
            raise StackError(f"{file}: cannot be read as labels ({first_line(error)})") from error
        return _planes(labels, file, depth)

    def load(number: Number) -> NDArray[Any]:
        file, z = places[number]
        plane: NDArray[Any] = read(file)[z]
        return plane

    names = {number: file.name for number, (file, _) in places.items()}
    # A single file is what it is: it counts as frame 0 where its name has no number.
    return LabelFrames(str(path), tuple(places), load, names, by_name is None)


def _depth(file: Path) -> int:
    """How many planes a file holds; what cannot be read counts as one, and is named later."""
    if file.suffix.lower() not in TIFF:
        return 1
    try:
        with tifffile.TiffFile(file) as tiff:
            series = tiff.series[0]
    except Exception:
        return 1
    return int(np.prod(series.shape[:-2])) if series.axes.endswith("YX") else 1


def _read_image(file: Path) -> NDArray[Any]:
    if file.suffix.lower() in TIFF:
        return np.asarray(tifffile.imread(file))
    import imagecodecs

    return np.asarray(imagecodecs.png_decode(file.read_bytes()))


def _planes(labels: NDArray[Any], where: Path, depth: int) -> NDArray[Any]:
    """Label planes (depth, Y, X), or a colour picture (1, Y, X, 3 or 4); StackError otherwise."""
    lean = labels.reshape([n for n in labels.shape[:-2] if n > 1] + list(labels.shape[-2:]))
    if depth == 1 and (lean.ndim == 2 or (lean.ndim == 3 and lean.shape[-1] in (3, 4))):
        return lean[None]
    if lean.ndim < 2 or int(np.prod(lean.shape[:-2])) != depth:
        raise StackError(
            f"{where}: one frame of labels has two axes, or the {depth} planes of the first file, "
            f"not the shape {labels.shape}"
        )
    return lean.reshape(depth, *lean.shape[-2:])


def _trailing_number(file: Path) -> int | None:
    digits = re.search(r"(\d+)$", file.stem)
    return int(digits[1]) if digits else None


def _natural(file: Path) -> list[tuple[int, str]]:
    """Sort key that puts t2 before t10."""
    parts = re.split(r"(\d+)", file.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _hidden(file: Path) -> bool:
    return file.name.startswith((".", "_"))
