"""The step `finish`: blocks of a stitched stack get final ids: the labels that the job leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.geometry.arrays import ResultArray
from engine.geometry.layout import Block
from engine.labels.components import bands
from engine.plan.plan import StackPlan
from engine.steps.base import IsMine, all_mine
from engine.steps.part_store import PartStore
from engine.steps.shards import put_shards
from engine.steps.task import Outcome, TaskRun
from engine.store.committed import record_key, stitch_record, unfinished
from engine.store.folder import JobFolder
from engine.store.ome_zarr import encode_shard, new_shard
from engine.store.records import BlockRecord


class Finish:
    """Turns local labels into final ones."""

    name = "finish"
    reads_input = False

    def pending(
        self, stack: StackPlan, folder: JobFolder, is_mine: IsMine = all_mine
    ) -> Iterator[int]:
        """Blocks without their final labels."""
        if stack.layout.is_stitched:
            yield from unfinished(folder, stack)

    def carry_out(self, run: TaskRun) -> Outcome:
        """Do a block."""
        plan, folder, block = run.plan, run.folder, run.block
        parts = PartStore(folder, plan)
        with run.watch.stage("read"):
            part = parts.record(block.index)
        encoded = {
            array.kind: _finished(run, block, array, parts.labels(block.index, part, array))
            for array in plan.label_images
        }
        with run.watch.stage("write"):
            run.check_identity()
            checksums = put_shards(folder, plan, block, encoded)
        record = BlockRecord(block=block.index, shards={**checksums, **part.shards})
        run.commit(record_key(plan.name, block.index), record)
        return run.outcome()


def _finished(run: TaskRun, block: Block, array: ResultArray, local: NDArray[Any]) -> bytes:
    """A label image of a block as it is put: of local labels, those with their final ids."""
    plan = run.plan
    shard = new_shard(array.shape(plan.layout))
    with run.watch.stage("labels"):
        if array.gives_instances:
            final = PartStore(run.folder, plan).final_ids(block.index)
            for out, band in zip(bands(_rows(shard)), bands(_rows(local)), strict=True):
                np.take(final, band, out=out)
        else:
            for at in _good_planes(run, block):
                shard[at] = local[at]
    with run.watch.stage("write"):
        return encode_shard(array.shape(plan.layout), shard)


def _good_planes(run: TaskRun, block: Block) -> Iterator[tuple[int, int]]:
    """Places in the shard of the planes that were not set aside."""
    layout = run.plan.layout
    group = layout.stitch_group(layout.stitch_group_of(block.index))
    record = stitch_record(run.folder, run.plan.name, group)
    good = {(f.t, f.z) for f in (record.frames if record else ()) if not f.failed}
    return ((t - block.t[0], z - block.z[0]) for t, z in block.frames if (t, z) in good)


def _rows(labels: NDArray[Any]) -> NDArray[Any]:
    return labels.reshape(-1, labels.shape[-1])
