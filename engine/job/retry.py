"""Frames that were set aside, done again: which they are, and that nothing else has changed."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from engine.errors import FrameError, OutputError
from engine.job.prepare import MISSING, Prepared
from engine.plan.plan import StackPlan
from engine.stacks.base import Stack
from engine.stacks.windows import windows_of
from engine.steps.hangs import Frame, Hung
from engine.steps.worker import open_within
from engine.store.claim import check, differences
from engine.store.committed import block_record
from engine.store.folder import JobFolder

AT_ONCE = 256  # rows on their way to be compared


def check_begun(folder: JobFolder) -> dict[str, Any]:
    """The identity of the folder's job; OutputError where there is none to go on with."""
    known = folder.identity()
    if known is None:
        raise OutputError(f"{folder.root}: holds no job whose frames could be tried again")
    return known


def readmit(folder: JobFolder, job: Prepared, wanted: dict[str, Any]) -> None:
    """Let a job go on whose input was mended since: every frame that was done is the same still.

    The hash of each such frame is on record; all are read again where the input's files are not
    those of the beginning. Raises OutputError where there is no job, or anything else differs.
    Canvases that hold failed frames are taken back.
    """
    known = check_begun(folder)
    mended = copy.deepcopy(wanted)
    # Frames that lack every chunk had failed, and may be read as background now: no other frame
    # changes by that.
    allowed = MISSING in wanted and MISSING not in known
    if allowed:
        del mended[MISSING]
    changed = []
    for stack in job.plan.stacks:
        before = known["stacks"].get(stack.name, {}).get("content")
        if before != stack.info.identity:
            changed.append(stack)
            mended["stacks"][stack.name]["content"] = before
    if differences(known, mended):
        check(folder, wanted, fresh=False)  # says what
    for stack in changed:
        _compare(folder, job, stack)
    if allowed:
        folder.remove(folder.settings_path)  # written again: a merge reads them
    if changed or allowed:
        folder.put_json(folder.identity_path, wanted)
    for stack in job.plan.stacks:
        if stack.layout.is_stitched:
            _take_back(folder, stack)


def failed_frames(
    folder: JobFolder, job: Prepared, stack: StackPlan
) -> dict[int, tuple[Frame, ...]]:
    """Failed frames of committed blocks of whole frames, by block; none unless asked for."""
    if not job.settings.retry_failed or stack.layout.is_stitched:
        return {}
    found = {}
    for block in stack.layout.blocks():
        record = block_record(folder, stack, block)
        failed = [(r["t"], r["z"]) for r in _rows(record) if r["status"] == "failed"]
        if failed:
            found[block.index] = tuple(failed)
    return found


def _rows(record: dict[str, Any] | None) -> list[dict[str, Any]]:
    return list((record or {}).get("frames", ()))


def _take_back(folder: JobFolder, stack: StackPlan) -> None:
    """A stitch group with a failed frame is stitched anew, from new parts.

    So is one that is not stitched yet: its parts may hold failed frames, or another input's.

    Its record goes last: after an end in the middle, the group still tells what failed. Records of
    its blocks are taken back when it is stitched.
    """
    for stitch_group in stack.layout.stitch_groups():
        record = folder.stitch_record(stack.name, stitch_group)
        has_failed = any(row["status"] == "failed" for row in _rows(record))
        if has_failed or record is None:
            folder.remove(folder.root / "job.json")
            for block in stitch_group.blocks:
                folder.remove(folder.place("work/parts", stack.name, block))
            for t, z in stitch_group.frames:
                frame = stack.layout.frame_index(t, z)
                folder.remove(folder.place("work/survey", stack.name, frame))
            folder.remove(folder.place("stitched", stack.name, stitch_group.index))


def _done(folder: JobFolder, job: Prepared, stack: StackPlan) -> Iterator[dict[str, Any]]:
    """Rows of all frames that were done, of committed blocks and stitch groups."""
    layout = stack.layout
    if layout.is_stitched:
        records = (folder.stitch_record(stack.name, c) for c in layout.stitch_groups())
    else:
        records = (block_record(folder, stack, block) for block in layout.blocks())
    for record in records:
        yield from (row for row in _rows(record) if row["status"] == "ok")


def _compare(folder: JobFolder, job: Prepared, plan: StackPlan) -> None:
    """OutputError where a frame that was done is another one now."""
    try:
        limited = open_within(job.settings.timeout, plan)
    except Hung as error:
        raise OutputError(
            f"{plan.info.path}: could not be opened again within {error.seconds:g} s, to see "
            "whether frames that were done are the same still"
        ) from error
    with limited, ThreadPoolExecutor(job.plan.workers) as pool:

        def compare(row: dict[str, Any]) -> None:
            where = f"{plan.info.path}: frame t={row['t']} z={row['z']}"
            try:
                digest = limited.within(lambda stack: _digest(stack, plan, row["t"], row["z"]))
            except Hung as error:
                raise OutputError(
                    f"{where} was done, and reading it again did not end within {error.seconds:g} s"
                ) from error
            except FrameError as error:
                raise OutputError(
                    f"{where} was done, and cannot be read any more: {error}"
                ) from error
            if digest != row["sha256"]:
                raise OutputError(
                    f"{where} has changed since it was done; start over with --fresh, or give "
                    "another --output"
                )

        rows = _done(folder, job, plan)
        while some := list(itertools.islice(rows, AT_ONCE)):
            for _ in pool.map(compare, some):
                pass


def _digest(stack: Stack, plan: StackPlan, t: int, z: int) -> str:
    if not plan.layout.is_cut:
        return hashlib.sha256(stack.read(t, z, plan.all_channels).data).hexdigest()
    digest = hashlib.sha256()
    for rows, columns in windows_of(plan.info):
        digest.update(stack.read_window(t, z, plan.all_channels, rows, columns).data)
    return digest.hexdigest()
