"""The one door to labels: results, Zarr, TIFF, PNG, folders of them, challenge folders.

Labels are read in their own dtype. `engine.stacks` reads pixels for the network, and its
float32 would merge ids beyond 2**24.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import StackError, UsageError
from engine.results.result import Job, LabelClass, job_of
from engine.results.score.files import (
    challenge_folder,
    label_files,
    open_file,
    open_folder,
    open_markers,
)
from engine.results.score.frames import LabelFrames
from engine.results.score.origin import origin_of
from engine.results.score.palettes import colours_of
from engine.results.score.zarrs import open_zarr
from engine.stacks.guard import opening
from engine.stacks.inputs import SUFFIXES
from engine.stacks.zarr.metadata import is_zarr
from engine.truth.palette import Palette

CHALLENGE = ("_ST", "_GT")  # the complete truth first


@dataclass(frozen=True)
class Truth:
    """The truth of one stack."""

    path: str
    labels: LabelFrames | None  # None: markers alone
    markers: LabelFrames | None = None  # of a challenge folder, for DET
    palette: bool = False  # its colours are classes, by a palette

    @property
    def det_against(self) -> str:
        """What DET is computed from, in words."""
        return f"the markers of {self.markers.path}" if self.markers else "the objects of the truth"


def open_labels(path: Path | str) -> LabelFrames:
    """Open the label frames of one stack.

    Parameters
    ----------
    path
        A result folder of one stack or its NAME.zarr, for the job's own labels, or a label image
        in it; a Zarr array; a TIFF of one or more frames; a PNG; a folder of TIFF or PNG frames;
        a Cell Tracking Challenge folder (NN_ST, NN_GT, NN_RES, their SEG, or what holds them: the
        complete silver truth first).

    Frames are numbered by T and Z of the array (by Z alone where there is no T), shifted by the
    translation of an OME-Zarr image; single files by the digits at the end of their names, or
    else by their order.

    Raises StackError or UsageError with one sentence where that is not possible.
    """
    stacks = open_stacks(path)
    if len(stacks) > 1:
        names = ", ".join(f"{name}.zarr" for name in stacks)
        raise UsageError(f"{path}: holds the results of several stacks, name one of {names}")
    return next(iter(stacks.values()))


def open_stacks(path: Path | str) -> dict[str, LabelFrames]:
    """Open the label frames of every stack of a result, by name; anything else is one stack.

    As `open_labels`.
    """
    where = Path(path)
    with opening(str(where)):
        job = job_of(where)
        if where.is_file():
            return {where.stem: open_file(where)}
        if not where.is_dir():
            raise StackError(f"{where}: does not exist")
        if is_zarr(where):
            return {where.stem: _open_store(where, job)}
        if names := _stacks_in(where, job):
            return {name: _open_store(where / f"{name}.zarr", job) for name in names}
        return {where.name: open_folder(where)}


def open_truth(path: Path | str) -> Truth:
    """Open the truth of one stack: as `open_labels`, with markers where it has some.

    The markers of a challenge folder NN_GT lie in its TRA.
    """
    where = Path(path)
    with opening(str(where)):
        markers = open_markers(where) if where.is_dir() else None
    if markers is not None and challenge_folder(where) is None:
        return Truth(str(path), None, markers)
    return Truth(str(path), open_labels(path), markers)


def open_pictures(path: Path | str, palette: Palette, classes: tuple[LabelClass, ...]) -> Truth:
    """Open the truth of one stack, whose colours are classes: a picture, or a folder of pictures.

    `classes` are those of the result, none where nothing names them. Raises StackError or
    UsageError where there is no picture.
    """
    where, colours = Path(path), colours_of(palette, classes)
    with opening(str(where)):
        if where.is_file():
            return Truth(str(path), open_file(where, colours), palette=True)
        if not where.is_dir():
            raise StackError(f"{where}: does not exist")
        if is_zarr(where) or job_of(where) is not None:
            raise UsageError(f"{where}: has numbers for classes, not colours; omit --palette")
        return Truth(str(path), open_folder(where, colours), palette=True)


def truths_by_stack(
    path: Path | str, names: list[str], labels: Path | str, *, pictures: bool = False
) -> tuple[dict[str, Path], int]:
    """The truth of each stack in a folder, by the stack's name, and how many are left over.

    A stack NAME has its truth in a folder NAME_ST or NAME_GT, in NAME.tif, NAME.png or NAME.zarr,
    or in a folder NAME; where there is one stack, it is `path` itself. Raises UsageError where no
    stack has one. With `pictures`, JPEG files count as well.
    """
    if len(names) == 1:
        return {names[0]: Path(path)}, 0
    folder = Path(path)
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: is one truth for the {len(names)} stacks of {labels}; give a folder with "
            f"one for each, or one result, as {labels}/{names[0]}.zarr"
        )
    found = {}
    suffixes = (*CHALLENGE, *SUFFIXES, "")  # 01_ST before 01: its images lie there
    for name in names:
        # Names of results are made longer, a/01, only where two stacks share the last part.
        bases = folder / name, folder / Path(name).name
        places = (base.with_name(base.name + suffix) for base in bases for suffix in suffixes)
        if there := next((place for place in places if place.exists()), None):
            found[name] = there
    if not found:
        raise UsageError(
            f"{folder}: has no truth by the name of any of the {len(names)} stacks of {labels}; "
            f"that of the first would be {names[0]}.tif, .png or .zarr, or a folder {names[0]} "
            f"or {names[0]}_ST"
        )
    files = label_files(folder, pictures=pictures) if not is_zarr(folder) else []
    return found, len(set(files) - set(found.values()))


def _stacks_in(folder: Path, job: Job | None) -> list[str]:
    """Names of the stacks whose results a folder holds, those of `job` or any others."""
    if job is not None and job.folder == folder:
        return [one.name for one in job.report.inputs]
    found = sorted(folder.glob("*.zarr")) or sorted(folder.glob("*/*.zarr"))
    return [p.relative_to(folder).as_posix().removesuffix(".zarr") for p in found]


def _open_store(path: Path, job: Job | None) -> LabelFrames:
    frames = open_zarr(path)
    origin = origin_of(Path(frames.path), job)
    if origin is not None:
        return replace(frames, names=origin.file_names(frames.numbers), origin=origin)
    if len(frames.numbers) == 1:
        return replace(frames, names={frames.numbers[0]: path.name})
    return frames
