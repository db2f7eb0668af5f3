"""Results in the formats of other programs; every file is there whole or not at all."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from engine.errors import UsageError
from engine.results.convert.geojson import Measures, write_frame
from engine.results.convert.tables import write_csv
from engine.results.convert.tiff import CTC_MOST, highest_label, write_mask, write_stack
from engine.results.result import ResultStack, open_result
from engine.store.files import check_free, frame_name, whole_file, whole_folder
from engine.store.folder import PRIVATE

log = logging.getLogger("stackseg")

Format = Literal["tiff", "ctc", "csv", "geojson"]
Progress = Callable[[int, int], None]  # how many files are done, and how many there are


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
    """Write a result, or one stack of it, below `output`; the files or folders that were made.

    Raises UsageError, StackError or OutputError, one sentence, before anything is written where
    that can be known.
    """
    stacks = open_result(path, labels)
    if stack is not None:
        listed = ", ".join(s.name for s in stacks)
        stacks = [s for s in stacks if s.name == stack]
        if not stacks:
            raise UsageError(f"--stack {stack}: {path} has no such stack; it has {listed}")
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output {output}: is a file; give a folder")
    for one in stacks:
        if one.failed:
            log.warning(
                "%s: %d frames were set aside, and have no labels", one.store, len(one.failed)
            )
    write = {"tiff": _tiff, "ctc": _ctc, "csv": _csv, "geojson": _geojson}[to]
    return list(write(stacks, output, overwrite, progress or (lambda done, total: None)))


def _tiff(
    stacks: list[ResultStack], output: Path, overwrite: bool, progress: Progress
) -> Iterator[Path]:
    paths = [output / f"{stack.file_name}.ome.tif" for stack in stacks]
    for path in paths:
        check_free(path, overwrite=overwrite)
    for n, (stack, path) in enumerate(zip(stacks, paths, strict=True)):
        with whole_file(path, overwrite=overwrite) as partial:
            write_stack(partial, stack)
        progress(n + 1, len(stacks))
        yield path


def _ctc(
    stacks: list[ResultStack], output: Path, overwrite: bool, progress: Progress
) -> Iterator[Path]:
    for stack in stacks:
        if stack.classes:
            raise UsageError(
                f"{stack.store}: is a class map, and the challenge's masks hold objects; "
                "use --to tiff"
            )
        _check_connected(stack)
        if (most := highest_label(stack.labels)) > CTC_MOST:
            raise UsageError(
                f"{stack.store}: has the label {most}, and the challenge's 16-bit masks end at "
                f"{CTC_MOST}; use --to tiff"
            )
    sequences = _sequences(stacks)
    paths = [output / f"{sequence}_RES" for sequence in sequences]
    for path in paths:
        check_free(path, overwrite=overwrite)
    total, done = sum(len(stack.labels.ts) for stack in stacks), 0
    for stack, path in zip(stacks, paths, strict=True):
        digits = 3 if stack.labels.ts.stop <= 1000 else 4
        with whole_folder(path, "mask*.tif", overwrite=overwrite) as folder:
            for t in stack.labels.ts:
                write_mask(folder / f"mask{t:0{digits}d}.tif", stack.labels, t)
                progress(done := done + 1, total)
        log.info("%s: %s", path, stack.name)
        yield path
    log.info("no tracks are made: for the tracking benchmark a tracker has to add res_track.txt")


def _check_connected(stack: ResultStack) -> None:
    """UsageError where ids begin anew in each plane: a mask has one object for each id."""
    if len(stack.labels.zs) == 1:
        return
    if stack.origin is None:
        log.warning(
            "%s: was moved away from its job, which knows whether objects go on from plane to "
            "plane; if they do not, masks make one object of those with the same id", stack.store
        )  # fmt: skip
    elif not stack.origin.layout.connect_z:
        raise UsageError(
            f"{stack.store}: has ids that begin anew in each of its {len(stack.labels.zs)} planes, "
            "and the challenge's masks have one object for each id; segment with --connect z, or "
            "use --to tiff"
        )


def _sequences(stacks: list[ResultStack]) -> list[str]:
    """The challenge's numbers: the stacks' own where all have one, else in their order."""
    names = [stack.name for stack in stacks]
    if all(re.fullmatch(r"\d{2,3}", name) for name in names):
        return names
    return [f"{n + 1:02d}" for n in range(len(stacks))]


def _csv(
    stacks: list[ResultStack], output: Path, overwrite: bool, progress: Progress
) -> Iterator[Path]:
    if (output / PRIVATE).is_dir():
        raise UsageError(f"--output {output}: holds a job, and its own tables; give another")
    folder = stacks[0].folder
    if folder is None:
        one = stacks[0]
        raise UsageError(
            f"{one.store}/labels/{one.model}: has no tables, since no job of this result made it"
            if one.origin
            else f"{one.store}: was moved away from its job, whose folder holds the tables; give "
            "that folder"
        )
    names = ("frames", "objects")
    paths = [output / f"{name}.csv" for name in names]
    for path in paths:
        check_free(path, overwrite=overwrite)
    for n, (name, path) in enumerate(zip(names, paths, strict=True)):
        with whole_file(path, overwrite=overwrite) as partial:
            write_csv(partial, folder / f"{name}.parquet", {stack.name for stack in stacks})
        progress(n + 1, len(names))
        yield path


def _geojson(
    stacks: list[ResultStack], output: Path, overwrite: bool, progress: Progress
) -> Iterator[Path]:
    paths = [output / stack.file_name for stack in stacks]
    for path in paths:
        check_free(path, overwrite=overwrite)
    total, done = sum(len(list(stack.labels.numbers)) for stack in stacks), 0
    for stack, path in zip(stacks, paths, strict=True):
        measures = Measures(stack)
        with whole_folder(path, "*.geojson", overwrite=overwrite) as folder:
            for number in stack.labels.numbers:
                name = frame_name(stack.labels.axes, *number)
                write_frame(folder / f"{name}.geojson", stack, number, measures)
                progress(done := done + 1, total)
        yield path
