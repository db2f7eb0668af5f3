"""The entrance to all readers: the content of a path decides which one opens it, not its name."""

from __future__ import annotations

from pathlib import Path

from engine.errors import StackError
from engine.stacks.base import Stack
from engine.stacks.guard import opening, some
from engine.stacks.zarr.metadata import is_zarr


def open_stack(path: str, axes: str | None = None, series: str | None = None) -> Stack:
    """Open the only stack at `path`, or the one that `series` chooses; see `open_stacks`.

    Raises StackError where there are several.
    """
    stacks = open_stacks(path, axes, series)
    if len(stacks) == 1:
        return stacks[0]
    for stack in stacks:
        stack.close()
    listed = some([f"{s.info.series} ({s.info.series_name})" for s in stacks])
    raise StackError(
        f"{path}: holds {len(stacks)} stacks, but one is needed here: {listed}; choose one with "
        "--series where the command has it, or save them as separate files"
    )


def open_stacks(path: str, axes: str | None = None, series: str | None = None) -> list[Stack]:
    """Open every stack at `path`: one, but for a file of several scenes, or a folder of series.

    A file is a TIFF, a PNG, a JPEG, DICOM or NIfTI, by its first bytes; a folder is a Zarr array,
    an OME-Zarr image, DICOM series, or single-frame images in natural order. `axes` (letters out of
    TCZYX, one for each dimension of the source) overrides the metadata. `series` chooses among the
    images of a TIFF: a number, a name, "all", or "pages" for every page as a frame; among DICOM
    series: a number, a description, the end of a UID, or "all". Raises StackError, one sentence,
    where nothing can be opened or axes are ambiguous.
    """
    path = str(path)
    axes = axes.upper() if axes else None
    with opening(path):
        where = Path(path)
        if where.is_dir():
            return _open_folder(path, where, axes, series)
        if not where.exists():
            raise StackError(f"{path}: does not exist; check the path")
        if not where.is_file():
            raise StackError(f"{path}: is neither a file nor a folder; give a file or a folder")
        return _open_file(path, where, axes, series)


def _only(stack: Stack, series: str | None) -> Stack:
    """A stack that is the only one of its input; StackError where `series` wants another."""
    if series not in (None, "0", "all", "pages"):
        stack.close()
        raise StackError(f"{stack.info.path}: has no image {series}; it has one, number 0")
    return stack


def _open_folder(path: str, where: Path, axes: str | None, series: str | None) -> list[Stack]:
    if is_zarr(where) or (where / ".zmetadata").is_file():
        from engine.stacks.zarr.stack import open_zarr

        return [_only(open_zarr(path, axes), series)]
    if where.suffix.lower() == ".zarr":
        raise StackError(f"{path}: is named like a Zarr store but has no Zarr metadata")
    from engine.stacks.dicom.series import dicom_files

    if files := dicom_files(where):
        from engine.stacks.dicom.stack import open_series

        return open_series(path, files, axes, series)
    from engine.stacks.images.files import open_folder

    return [_only(open_folder(path, axes), series)]


def _open_file(path: str, where: Path, axes: str | None, series: str | None) -> list[Stack]:
    from engine.stacks.images import files as images

    with where.open("rb") as file:
        head = file.read(1024)
    kind = images.sniff(head)
    if kind == "TIFF":
        from engine.stacks.tiff.open import open_tiff

        return list[Stack](open_tiff(path, axes, series))
    if kind == "DICOM":
        from engine.stacks.dicom.stack import open_dicom

        return [_only(open_dicom(path, axes), series)]
    if kind == "NIfTI":
        from engine.stacks.nifti import open_nifti

        return [_only(open_nifti(path, axes), series)]
    if kind is not None:
        return [_only(images.open_image(path, axes), series)]
    raise StackError(f"{path}: {images.not_an_image(where, head)}")
