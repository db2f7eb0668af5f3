"""Probabilities that an earlier job kept: the source of a relabelling. Read against its records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import JobStopped
from engine.geometry.arrays import IMAGE, PROBABILITY, ResultArray
from engine.geometry.layout import Block
from engine.inference.outputs import Outputs
from engine.inference.probability import from_8_bit
from engine.plan.plan import StackPlan
from engine.steps.frame import Prediction
from engine.steps.task import TaskRun
from engine.store.committed import record_key, stitch_key, store_of
from engine.store.folder import JobFolder
from engine.store.object_store import get_checked
from engine.store.ome_zarr import decode_shard
from engine.store.records import BlockRecord, FrameRecord, StitchRecord


class Kept:
    """Probabilities, and pixels where these were kept too, of a block of an earlier job."""

    def __init__(self, run: TaskRun, block: Block) -> None:
        """Raises JobStopped where anything is not what the earlier job recorded."""
        self._run, self._block, plan = run, block, run.plan
        folder = JobFolder(Path(plan.source))
        record = _record(folder, plan, block)
        with run.watch.stage("read"):
            margins = {PROBABILITY: plan.postprocessing.margin, IMAGE: 0}
            self._shards = {
                array.kind: _read_around(folder, plan, block, record, array, margins[array.kind])
                for array in plan.kept
                if array.kind in margins
            }
        rows, columns = plan.layout.around(block, margins[PROBABILITY])
        self._inside = block.y.as_slice(rows.start), block.x.as_slice(columns.start)
        frames = record.frames if record.frames is not None else _stitched(folder, plan, block)
        self._frames = {(frame.t, frame.z): frame for frame in frames}

    def failure(self, t: int, z: int) -> str:
        """See `engine.steps.frame.Source`."""
        frame = self._frames[t, z]
        return frame.reason or "was set aside" if frame.failed else ""

    def predict(self, t: int, z: int) -> Prediction:
        """See `engine.steps.frame.Source`. Pixels that were not kept are read from the input."""
        run, block, frame = self._run, self._block, self._frames[t, z]
        with run.watch.stage("read"):
            probability = from_8_bit(self._plane(PROBABILITY, t, z))
            around = Outputs(probability, run.model.spec.n_class_outputs)
            if IMAGE in self._shards:
                pixels = run.plan.of_kept_image(self._plane(IMAGE, t, z))
            else:
                window = (block.y.as_slice(), block.x.as_slice())
                pixels = run.stack.read_window(t, z, run.plan.channels_read, *window)
        return Prediction(
            pixels, around, self._inside,
            frame.sha256 or "", frame.missing_chunks or 0, bool(frame.blank),
        )  # fmt: skip

    def _plane(self, kind: str, t: int, z: int) -> NDArray[Any]:
        """A frame of a shard, (C, Y, X)."""
        block, shard = self._block, self._shards[kind]
        plane: NDArray[Any] = shard[t - block.t[0]]
        return plane[:, z - block.z[0]] if shard.ndim == 5 else plane[None, z - block.z[0]]


def _record(folder: JobFolder, plan: StackPlan, block: Block) -> BlockRecord:
    """The record of a block of the earlier job."""
    key = record_key(plan.name, block.index)
    record = folder.record(BlockRecord, key)
    if record is None:
        raise _damaged(folder.own.where(key), "is gone or cannot be read")
    return record


def _stitched(folder: JobFolder, plan: StackPlan, block: Block) -> Sequence[FrameRecord]:
    """Frames of a block of which its stitch group has the records."""
    key = stitch_key(plan.name, plan.layout.stitch_group_of(block.index))
    record = folder.record(StitchRecord, key)
    if record is None:
        raise _damaged(folder.own.where(key), "is gone or cannot be read")
    return record.frames


def _read_around(
    folder: JobFolder, plan: StackPlan, block: Block, record: BlockRecord, array: ResultArray,
    margin: int,
) -> NDArray[Any]:  # fmt: skip
    """A block of an array with `margin` px around it, which other blocks have, (..., Y, X)."""
    rows, columns = plan.layout.around(block, margin)
    own: NDArray[Any] = _read(folder, plan, block, record, array)
    if (rows, columns) == (block.y, block.x):
        return own[..., : rows.size, : columns.size]
    around = np.empty((*own.shape[:-2], rows.size, columns.size), own.dtype)
    for other in plan.layout.blocks_within(block, rows, columns):
        shard = own
        if other != block:
            shard = _read(folder, plan, other, _record(folder, plan, other), array)
        y, x = other.y.within(rows), other.x.within(columns)
        part = shard[..., y.as_slice(other.y.start), x.as_slice(other.x.start)]
        around[..., y.as_slice(rows.start), x.as_slice(columns.start)] = part
    return around


def _read(
    folder: JobFolder, plan: StackPlan, block: Block, record: BlockRecord, array: ResultArray
) -> NDArray[np.generic]:
    key = f"{store_of(plan.name)}/{array.key(plan.layout, block)}"
    where = folder.results.where(key)
    try:
        data = get_checked(folder.results, key, record.shards.get(array.kind))
        return decode_shard(array.shape(plan.layout), data)
    except OSError as error:
        raise _damaged(where, f"cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise _damaged(where, "is not what was recorded") from error


def _damaged(where: str, what: str) -> JobStopped:
    return JobStopped(
        f"{where}: {what}; remove it if it is there, have it made again by the `stackseg segment` "
        "that made this result, and run the same command again"
    )
