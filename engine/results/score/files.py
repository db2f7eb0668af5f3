"""Label images in files: TIFF and PNG, folders of them, challenge folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from engine.errors import StackError, UsageError
from engine.results.planes import Number
from engine.results.score.frames import LabelFrames
from engine.results.score.palettes import Colours
from engine.stacks.images.files import natural_key
from engine.truth.image import LabelFile, LabelImage, count_label_images, read_label_images

SUFFIXES, PHOTOS = (".tif", ".tiff", ".png"), (".jpg", ".jpeg")


def open_file(path: Path, colours: Colours | None = None) -> LabelFrames:
    """Open a PNG, or a TIFF of one or more frames; with `colours`, a picture of classes."""
    if colours is not None:
        return _files(path, [path], colours)
    labels = LabelFile(path)
    if len(labels.numbers) == 1:
        return _files(path, [path])
    index = {number: i for i, number in enumerate(labels.numbers)}

    def load(number: Number) -> LabelImage:
        return labels.plane(index[number])

    return LabelFrames(str(path), labels.numbers, load, planes=labels.is_volume)


def open_folder(path: Path, colours: Colours | None = None) -> LabelFrames:
    """Open a folder of frames, or the SEG of a challenge folder; with `colours`, of pictures."""
    folder = challenge_folder(path) or path
    files = label_files(folder, pictures=colours is not None)
    if not files:
        for photo in sorted(f for f in folder.iterdir() if f.suffix.lower() in PHOTOS):
            LabelFile(photo)  # raises what is wrong with it
        raise StackError(f"{path}: holds no label images (TIFF, PNG or Zarr)")
    return _files(folder, files, colours)


def open_markers(path: Path) -> LabelFrames | None:
    """The markers (`man_trackTTT.tif`) of a challenge folder NN_GT or its TRA; None without."""
    for folder in (path, path / "TRA"):
        files = sorted(folder.glob("man_track*.tif"))
        if files:
            return _files(folder, files)
    return None


def label_files(folder: Path, *, pictures: bool = False) -> list[Path]:
    """TIFF and PNG files of a folder in natural order; of `pictures`, also JPEG."""
    suffixes = (*SUFFIXES, *PHOTOS) if pictures else SUFFIXES
    return sorted(
        (f for f in folder.iterdir() if f.suffix.lower() in suffixes and f.name[0] not in "._"),
        key=lambda f: natural_key(f.name),
    )


def challenge_folder(path: Path) -> Path | None:
    """The folder of man_seg*.tif of a challenge folder; None for any other folder."""
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
    """Files by the numbers in their names; None where these are not all different."""
    named: dict[Number, Path] = {}
    for file in files:
        plane = re.fullmatch(r"man_seg_(\d+)_(\d+)", file.stem)  # one plane of a 3-D truth
        digits = plane or re.search(r"(\d+)$", file.stem)
        if digits:
            named[(int(digits[1]), int(plane[2]) if plane else 0)] = file
    return dict(sorted(named.items())) if len(named) == len(files) else None


def _files(path: Path, files: Sequence[Path], colours: Colours | None = None) -> LabelFrames:
    """Frames that are a file each, or the planes of volumes that are a file each."""
    by_name = numbered(files)
    at = by_name or {(t, 0): file for t, file in enumerate(files)}
    depth = count_label_images(files[0])
    places = {(t, z): (file, z) for (t, _), file in at.items() for z in range(depth)}
    if depth == 1:
        places = {number: (file, 0) for number, file in at.items()}

    @lru_cache(maxsize=1)  # the planes of a volume are read one after the other
    def read(file: Path) -> list[LabelImage]:
        images = read_label_images(file)
        if len(images) != depth:
            raise StackError(f"{file}: holds {len(images)} planes of labels, {files[0]} {depth}")
        return images

    def load(number: Number) -> LabelImage:
        file, z = places[number]
        if colours is not None:
            return colours.read(file, z if depth > 1 else None)
        return read(file)[z]

    names = {number: file.name for number, (file, _) in places.items()}
    # A single file is what it is: it counts as frame 0 where its name has no number.
    classes = sorted(colours.classes, key=lambda c: c.value) if colours else ()
    return LabelFrames(
        str(path), tuple(places), load, names, by_name is None, classes=tuple(classes)
    )
