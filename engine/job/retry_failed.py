"""Frames that were set aside, done again: which they are, and that nothing else has changed."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from engine.errors import FrameError, OutputError
from engine.job.prepare import Prepared
from engine.plan.plan import StackPlan
from engine.stacks.base import Stack, windows_of
from engine.steps.hangs import Frame, Hung
from engine.steps.part_store import PartStore
from engine.steps.survey import KIND as SURVEYS
from engine.steps.worker import open_within
from engine.store.claim import check, differences
from engine.store.committed import block_record, stitch_key, stitch_record
from engine.store.folder import IDENTITY, REPORT, SETTINGS, JobFolder, key_of
from engine.store.identity import JobIdentity
from engine.store.records import FrameRecord

AT_ONCE = 256  # frames on their way to be compared


def check_begun(folder: JobFolder) -> JobIdentity:
    """The identity of the folder's job; OutputError where there is none to resume."""
    known = folder.identity()
    if known is None:
        raise OutputError(f"{folder.root}: holds no job whose frames could be tried again")
    return known


def readmit(folder: JobFolder, job: Prepared, wanted: JobIdentity) -> None:
    """Let a job resume whose input was mended since: every frame that was done is unchanged.

    The hash of each such frame is on record; all are read again where the input's files are not
    those of the beginning. Raises OutputError where there is no job, or anything else differs.
    Stitch groups that hold failed frames are to be done again.
    """
    known = check_begun(folder)
    # Frames that lack every chunk had failed, and may be read as background now: no other frame
    # changes by that.
    allowed = (known.missing_chunks, wanted.missing_chunks) == ("fail", "background")
    changed, stacks = [], dict(wanted.stacks)
    for stack in job.plan.stacks:
        before = known.stacks.get(stack.name)
        if before and before.content != stack.info.identity:
            changed.append(stack)
            update = {"content": before.content}
            stacks[stack.name] = stacks[stack.name].model_copy(update=update)
    mended = wanted.model_copy(update={"stacks": stacks})
    if allowed:
        mended = mended.model_copy(update={"missing_chunks": known.missing_chunks})
    if differences(known, mended):
        check(folder, wanted, fresh=False)  # raises, and names them
    for stack in changed:
        _compare(folder, job, stack)
    if allowed:
        folder.own.delete(SETTINGS)  # written again: a merge reads them
    if changed or allowed:
        folder.put_record(IDENTITY, wanted)
    for stack in job.plan.stacks:
        if stack.layout.is_stitched:
            _reopen_groups(folder, stack)


def failed_frames(
    folder: JobFolder, job: Prepared, stack: StackPlan
) -> dict[int, tuple[Frame, ...]]:
    """Failed frames of committed blocks of whole frames, by block; none unless asked for."""
    if not job.settings.retry_failed or stack.layout.is_stitched:
        return {}
    found = {}
    for block in stack.layout.blocks():
        record = block_record(folder, stack, block)
        failed = [(f.t, f.z) for f in (record and record.frames) or () if f.failed]
        if failed:
            found[block.index] = tuple(failed)
    return found


def _reopen_groups(folder: JobFolder, stack: StackPlan) -> None:
    """A stitch group with a failed frame is stitched again, from new parts.

    So is one that is not stitched yet: its parts may hold failed frames, or another input's.

    Its record goes last: after an end in the middle, the group still says what failed. Records of
    its blocks go when it is stitched.
    """
    parts = PartStore(folder, stack)
    for group in stack.layout.stitch_groups():
        record = stitch_record(folder, stack.name, group)
        if record is None or any(frame.failed for frame in record.frames):
            frames = (stack.layout.frame_index(t, z) for t, z in group.frames)
            for key in (
                REPORT,
                *map(parts.record_key, group.blocks),
                *(key_of(SURVEYS, stack.name, frame) for frame in frames),
                stitch_key(stack.name, group.index),
            ):
                folder.own.delete(key)


def _done(folder: JobFolder, stack: StackPlan) -> Iterator[FrameRecord]:
    """All frames that were done, of committed blocks and stitch groups."""
    layout = stack.layout
    if layout.is_stitched:
        groups = (stitch_record(folder, stack.name, g) for g in layout.stitch_groups())
        frames = (record.frames for record in groups if record)
    else:
        blocks = (block_record(folder, stack, block) for block in layout.blocks())
        frames = (record.frames or () for record in blocks if record)
    return (frame for some in frames for frame in some if not frame.failed)


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

        def compare(frame: FrameRecord) -> None:
            where = f"{plan.info.path}: frame t={frame.t} z={frame.z}"
            try:
                digest = limited.within(lambda stack: _digest(stack, plan, frame.t, frame.z))
            except Hung as error:
                raise OutputError(
                    f"{where} was done, and reading it again did not end within {error.seconds:g} s"
                ) from error
            except FrameError as error:
                raise OutputError(
                    f"{where} was done, and cannot be read any more: {error}"
                ) from error
            if digest != frame.sha256:
                raise OutputError(
                    f"{where} has changed since it was done; start over with --fresh, or give "
                    "another --output"
                )

        frames = _done(folder, plan)
        while some := list(itertools.islice(frames, AT_ONCE)):
            for _ in pool.map(compare, some):
                pass


def _digest(stack: Stack, plan: StackPlan, t: int, z: int) -> str:
    if not plan.layout.is_cut:
        return hashlib.sha256(stack.read(t, z, plan.channels_read).data).hexdigest()
    digest = hashlib.sha256()
    for rows, columns in windows_of(plan.info):
        digest.update(stack.read_window(t, z, plan.channels_read, rows, columns).data)
    return digest.hexdigest()
