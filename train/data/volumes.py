"""Volumes as training data: NIfTI files, folders of one DICOM series, files of several planes.

A frame is a plane of its volume, in the order in which the engine reads them. Truth of a volume
has class numbers, in the order of the palette; of a slice it has the palette's colours.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import StackError, plural
from engine.stacks.base import Stack
from engine.stacks.dicom.header import read_header
from engine.stacks.dicom.series import dicom_files
from engine.stacks.nifti import affine_of
from engine.stacks.open import open_stack
from engine.truth.color_masks import read_classes
from engine.truth.ids import whole_numbers
from engine.truth.image import count_label_images, read_label_image
from engine.truth.palette import Palette
from train.data.truth import TruthSource

NIFTI = (".nii", ".nii.gz")
SEVERAL = (".tif", ".tiff", ".dcm", *NIFTI)  # suffixes of files that may hold several frames
AFFINE = 1e-3  # mm, or mm a voxel, that places of the same voxel may differ by


def is_nifti(path: Path) -> bool:
    """Whether a file is named like NIfTI."""
    return path.name.lower().endswith(NIFTI)


def is_series(path: Path) -> bool:
    """Whether a path is a folder of DICOM files."""
    return path.is_dir() and bool(dicom_files(path))


def stem_of(path: Path) -> str:
    """The name without its suffix, or without both of .nii.gz; of a folder, the whole name."""
    if path.is_dir():
        return path.name
    return Path(path.stem).stem if path.name.lower().endswith(NIFTI[1]) else path.stem


def open_volume(path: Path) -> Stack:
    """The stack at a path. The last ones stay open, since their planes are read one by one."""
    return _opened(str(path), path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=2)  # an image and its truth
def _opened(path: str, _changed: int) -> Stack:
    return open_stack(path)


def count_planes(image: Path, truth: Path) -> int:
    """How many frames an image has; StackError where its truth has others.

    Truth in NIfTI belongs to an image in NIfTI, whose voxels have the same places.
    """
    several = image.is_dir() or image.name.lower().endswith(SEVERAL)
    count = open_volume(image).info.n_frames if several else 1
    if is_nifti(truth):
        if not is_nifti(image):
            raise StackError(
                f"{truth}: is NIfTI, but {image.name} is not, so it is unknown which way its axes "
                "point in the image; write the truth as TIFF, a plane for each slice"
            )
        _check_places(image, truth)
        planes = open_volume(truth).info.n_frames
    else:
        planes = count_label_images(truth) if count > 1 else 1
    if planes != count:
        raise StackError(
            f"{image}: holds {count} frames, but {truth} {planes} label images; give as many"
        )
    return count


def _check_places(image: Path, truth: Path) -> None:
    ours, theirs = affine_of(str(truth)), affine_of(str(image))
    if not np.allclose(ours, theirs, rtol=0, atol=AFFINE):
        raise StackError(
            f"{truth}: its affine is not that of {image}, so its voxels lie elsewhere in the "
            "patient; resample the truth to the image"
        )


def holds_numbers(source: TruthSource) -> bool:
    """Whether a truth is one of a volume, which may have class numbers instead of colours."""
    return source.plane is not None or is_nifti(source.file)


def read_class_numbers(source: TruthSource, palette: Palette) -> NDArray[np.int32]:
    """Classes (Y, X) of a plane of a volume's truth: 0 is the palette's first class.

    A plane of a TIFF with larger values, or in colour, has the palette's colours instead.
    StackError where NIfTI has other numbers.
    """
    if is_nifti(source.file):
        return _of_nifti(source, palette)
    image = read_label_image(source.file, source.plane)
    whole = image.coloured() is None and image.pixels.dtype.kind == "u"
    if whole and image.pixels.max(initial=0) < len(palette.classes):
        return image.pixels.astype(np.int32)
    return read_classes(source.file, palette, source.plane)


def _of_nifti(source: TruthSource, palette: Palette) -> NDArray[np.int32]:
    file, count = source.file, len(palette.classes)
    stack = open_volume(file)
    if stack.info.size("C") != 1:
        raise StackError(f"{file}: has {stack.info.size('C')} channels; truth has one")
    t, z = divmod(source.plane or 0, stack.info.size("Z"))
    try:
        numbers = whole_numbers(stack.read(t, z, [0])[0])
    except StackError as error:
        raise StackError(f"{file}: {error}") from None
    if (lost := numbers >= count).any():
        y, x = np.argwhere(lost)[0]
        raise StackError(
            f"{file}: has the class number {numbers[y, x]} in {plural(int(lost.sum()), 'voxel')} "
            f"of plane {source.plane or 0}, the first at row {y}, column {x}, and the palette has "
            f"numbers 0 to {count - 1} ({palette}); give a palette with as many classes"
        )
    return numbers.astype(np.int32)


def groups_by_series(files: Iterable[tuple[Path, str]]) -> dict[str, str]:
    """Which groups of images are one, since files of theirs are slices of one DICOM series.

    `files` are images with the groups that their names say; returns the first of the joined groups
    for each that is not the first. Names of slices often say nothing of the patient.
    """
    first: dict[str, str] = {}  # by series
    joined: dict[str, str] = {}

    def root(group: str) -> str:
        while group in joined:
            group = joined[group]
        return group

    for path, group in files:
        if path.is_dir() or path.suffix.lower() != ".dcm":
            continue
        ours, theirs = root(group), root(first.setdefault(read_header(str(path)).series_uid, group))
        if ours != theirs:
            joined[ours] = theirs
    return {group: root(group) for group in joined}
