"""Results in the formats of other programs; each file appears complete or not at all."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from engine.errors import UsageError, plural
from engine.results.convert.tables import write_csv
from engine.results.convert.tiff import CTC_MOST, highest_label, write_mask, write_stack
from engine.results.result import ResultStack, choose_stack, open_result
from engine.store.files import check_free, frame_name, whole_file, whole_folder
from engine.store.folder import PRIVATE

log = logging.getLogger("stackseg")

Format = Literal["tiff", "ctc", "csv", "geojson", "nifti", "dicom-seg"]
Progress = Callable[[int, int], None]  # how many files are done, and how many there are


@dataclass(frozen=True)
class Target:
    """A file to be written, or a folder of files."""

    path: Path
    files: Mapping[str, Callable[[Path], None]]  # what writes each, by its name below `path`
    pattern: str = ""  # of the names in a folder; "": a file, whose name below itself is ""


def convert(
    path: Path | str,
    to: Format,
    output: Path,
    *,
    stack: str | None = None,
    labels: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write a result, or one stack of it, below `output`; the files or folders that were written.

    Raises UsageError, StackError, OutputError or MissingExtra, one sentence, before anything is
    written where that can be known.
    """
    stacks = open_result(path, labels)
    if stack is not None:
        stacks = [choose_stack(stacks, stack, path)]
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output {output}: is a file; give a folder")
    for one in stacks:
        if failed := len(one.failed):
            log.warning("%s: %s set aside, without labels", one.store, plural(failed, "frame"))
    targets = _TARGETS[to](stacks, output)
    for target in targets:
        check_free(target.path, overwrite=overwrite)
    done, total = 0, sum(len(target.files) for target in targets)
    for target in targets:
        whole = partial(whole_folder, pattern=target.pattern) if target.pattern else whole_file
        with whole(target.path, overwrite=overwrite) as staged:
            for name, write in target.files.items():
                write(staged / name)
                done += 1
                if progress is not None:
                    progress(done, total)
    return [target.path for target in targets]


def _tiff(stacks: list[ResultStack], output: Path) -> list[Target]:
    return [
        Target(output / f"{stack.file_name}.ome.tif", {"": partial(write_stack, stack=stack)})
        for stack in stacks
    ]


def _ctc(stacks: list[ResultStack], output: Path) -> list[Target]:
    for stack in stacks:
        if stack.classes:
            raise UsageError(
                f"{stack.store}: is a class map, and the challenge's masks hold objects; "
                "use --to tiff, or --labels of objects that it has beside it"
            )
        _check_connected(stack)
        if (most := highest_label(stack.labels)) > CTC_MOST:
            raise UsageError(
                f"{stack.store}: has the label {most}, and the challenge's 16-bit masks end at "
                f"{CTC_MOST}; use --to tiff"
            )

    targets = []
    for stack, sequence in zip(stacks, _sequences(stacks), strict=True):
        path, ts = output / f"{sequence}_RES", stack.labels.ts
        digits = 3 if ts.stop <= 1000 else 4
        masks = {
            f"mask{t:0{digits}d}.tif": partial(write_mask, labels=stack.labels, t=t) for t in ts
        }
        targets.append(Target(path, masks, "mask*.tif"))
        log.info("%s: %s", path, stack.name)
    log.info("res_track.txt is not written: for the tracking benchmark, a tracker has to add it")
    return targets


def _check_connected(stack: ResultStack) -> None:
    """UsageError where ids begin again in each plane: a mask has one object for each id."""
    if len(stack.labels.zs) == 1:
        return
    if stack.origin is None:
        log.warning(
            "%s: was moved away from its job, which knows whether objects continue from plane to "
            "plane; if they do not, masks make one object of those with the same id", stack.store
        )  # fmt: skip
    elif not stack.origin.layout.connect_z:
        raise UsageError(
            f"{stack.store}: has ids that begin again in each of its {len(stack.labels.zs)} "
            "planes, and the challenge's masks have one object for each id; segment with "
            "--connect z, or use --to tiff"
        )


def _sequences(stacks: list[ResultStack]) -> list[str]:
    """The challenge's numbers: the stacks' own where all have one, else in their order."""
    names = [stack.name for stack in stacks]
    if all(re.fullmatch(r"\d{2,3}", name) for name in names):
        return names
    return [f"{n + 1:02d}" for n in range(len(stacks))]


def _csv(stacks: list[ResultStack], output: Path) -> list[Target]:
    if (output / PRIVATE).is_dir():
        raise UsageError(f"--output {output}: holds a job, and its own tables; give another")
    one, folder = stacks[0], stacks[0].folder
    if folder is None:
        raise UsageError(
            f"{one.store}/labels/{one.model}: has no tables, since no job of this result wrote it"
            if one.origin
            else f"{one.store}: was moved away from its job, whose folder holds the tables; give "
            "that folder"
        )

    names = {stack.name for stack in stacks}
    return [
        Target(
            output / f"{table}.csv",
            {"": partial(write_csv, table=folder / f"{table}.parquet", stacks=names)},
        )
        for table in ("frames", "objects")
    ]


def _geojson(stacks: list[ResultStack], output: Path) -> list[Target]:
    from engine.results.convert.geojson import write_frame  # needs an extra

    targets = []
    for stack in stacks:
        frames = {
            f"{frame_name(stack.labels.axes, *n)}.geojson": partial(
                write_frame, stack=stack, number=n
            )
            for n in stack.labels.numbers
        }
        targets.append(Target(output / stack.file_name, frames, "*.geojson"))
    return targets


def _nifti(stacks: list[ResultStack], output: Path) -> list[Target]:
    from engine.results.convert.affine import affine_of_stack
    from engine.results.convert.nifti import write_volume  # needs an extra

    targets = []
    for stack in stacks:
        write = partial(write_volume, stack=stack, affine=affine_of_stack(stack))
        targets.append(Target(output / f"{stack.file_name}.nii.gz", {"": write}))
    return targets


def _dicom_seg(stacks: list[ResultStack], output: Path) -> list[Target]:
    from engine.results.convert.dicom_seg import writers  # needs an extra

    targets = []
    for stack in stacks:
        files = writers(stack)
        targets += [Target(output / name, {"": write}) for name, write in files.items()]
        if not stack.classes:
            log.info(
                "%s: its objects are one segment, %s; --to nifti keeps their ids",
                stack.store, stack.objects.name,
            )  # fmt: skip
    log.info("patient and study are those of the images; a segmentation is as identifying as they")
    return targets


_TARGETS: Mapping[Format, Callable[[list[ResultStack], Path], list[Target]]] = {
    "tiff": _tiff,
    "ctc": _ctc,
    "csv": _csv,
    "geojson": _geojson,
    "nifti": _nifti,
    "dicom-seg": _dicom_seg,
}
