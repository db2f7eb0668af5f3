"""A block of whole frames: labels are final, and one pass does it all, levels included."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from engine.geometry.arrays import level_layout
from engine.geometry.layout import Block
from engine.measure.frames import Measures
from engine.measure.objects import ObjectColumns
from engine.steps.frame import Prediction, Source, label_whole, segment_planes
from engine.steps.hangs import Frame
from engine.steps.level import put_level
from engine.steps.shards import BlockShards, put_shards
from engine.steps.task import Outcome, TaskRun
from engine.store.committed import (
    block_record,
    hash_of,
    objects_key,
    record_key,
    shard_keys,
)
from engine.store.object_store import get_checked
from engine.store.ome_zarr import decode_shard
from engine.store.records import BlockRecord, FrameRecord
from engine.store.tables import decode_objects, encode_objects


def segment_whole(run: TaskRun, source: Source) -> Outcome:
    """Do a block of whole frames and commit it."""
    plan, block = run.plan, run.block
    # Where other runs share the job, one of them takes it for done once all blocks have records,
    # and makes the levels itself.
    alone = not run.task.context.is_shared
    shards = BlockShards(plan, block, plan.arrays, run.watch, with_levels=alone)
    earlier = _earlier(run, block) if run.task.only else None
    labelling = _WholeLabels(run, shards)
    frames: list[FrameRecord] = []
    for t, z in block.frames:
        if earlier is not None and (t, z) not in run.task.only:
            shards.take(t, z, earlier.shards)
            frames.append(earlier.frames[t, z])
            if (t, z) in earlier.objects:
                labelling.objects.append((t, z, earlier.objects[t, z]))
        else:
            frames += segment_planes(run, t, (z,), source, labelling, shards)
    record = _commit(run, block, shards, frames, labelling.objects)
    _commit_levels(run, block, shards, record)
    return run.outcome(
        len(frames),
        tuple((frame.t, frame.z, frame.reason or "") for frame in frames if frame.failed),
        sum(frame.objects for frame in frames),
    )


class _WholeLabels:
    """Labels of whole frames, each on its own. See `engine.steps.frame.Labelling`."""

    def __init__(self, run: TaskRun, shards: BlockShards) -> None:
        self._run, self._shards = run, shards
        self._measures: dict[int, Measures] = {}
        self.objects: list[tuple[int, int, ObjectColumns]] = []  # t, z, columns

    def label(self, t: int, planes: dict[int, Prediction]) -> None:
        """See `Labelling`. Measures come with the labels."""
        plan = self._run.plan
        self._measures = {}
        for z, plane in planes.items():
            done = label_whole(
                plan.summed_channels(plane.pixels),
                plan.channels[0],
                plane.outputs,
                self._run.model.spec,
                plan.postprocessing,
                plan.pixel_area_um2,
                self._run.watch,
            )
            self._measures[z] = done.measures
            self._shards.put_labels(t, z, done.images)
            if done.objects is not None:
                self.objects.append((t, z, done.objects))

    def measure(self, t: int, z: int, plane: Prediction | None) -> Measures:
        """See `Labelling`."""
        return self._measures[z] if plane is not None else {}


def _commit(
    run: TaskRun,
    block: Block,
    shards: BlockShards,
    frames: list[FrameRecord],
    rows: list[tuple[int, int, ObjectColumns]],
) -> BlockRecord:
    """Put data first and the record last: what has a record is whole and on the disk."""
    plan, folder = run.plan, run.folder
    key = record_key(plan.name, block.index)
    encoded = dict(shards.encode())
    with run.watch.stage("write"):
        objects = encode_objects(plan.objects_of, rows)
        run.check_identity()
        if run.task.only:
            # The old record speaks of the old shard: an end in between leaves a block to be done.
            folder.own.delete(key)
        checksums = put_shards(folder, plan, block, encoded)
        folder.own.put(objects_key(plan.name, block.index), objects)
    record = BlockRecord(
        block=block.index,
        shards=checksums,
        objects_sha256=hashlib.sha256(objects).hexdigest(),
        frames=tuple(frames),
    )
    run.commit(key, record)
    return record


def _commit_levels(run: TaskRun, block: Block, shards: BlockShards, record: BlockRecord) -> None:
    """Commit the block's levels, each after what it is made of.

    In this order a shard is only ever put in place of one whose record is stale by then, or of its
    own bytes. What is not done where this ends early is left to the steps `level-1`, ...
    """
    below = record.shards
    for level in shards.above:
        parents = hash_of(run.plan, level, [(block.index, below)])
        at_level = level_layout(run.plan.layout, level).block(block.index)
        made = put_level(run, at_level, level, parents, shards.encode(level))
        run.folder.put_record(record_key(run.plan.name, block.index, level), made)
        below = made.shards
    if shards.above:
        run.put_timings(durable=False)  # once more, with what levels took: nothing waits for it


@dataclass
class _Earlier:
    """What an earlier run left of the frames that are not repeated."""

    shards: dict[str, NDArray[Any]]  # by kind of array
    frames: dict[Frame, FrameRecord]
    objects: dict[Frame, ObjectColumns]


def _earlier(run: TaskRun, block: Block) -> _Earlier | None:
    """What is committed of a block; None where it is not whole, so that all of it is done."""
    plan, folder = run.plan, run.folder
    record = block_record(folder, plan, block)
    if record is None or record.frames is None:
        return None
    keys = shard_keys(plan, block)
    try:
        shards = {
            array.kind: decode_shard(
                array.shape(plan.layout),
                get_checked(folder.results, keys[array.kind], record.shards[array.kind]),
            )
            for array in plan.arrays
        }
        key = objects_key(plan.name, block.index)
        objects = decode_objects(
            plan.objects_of, get_checked(folder.own, key, record.objects_sha256)
        )
    except ValueError:
        return None
    return _Earlier(shards, {(frame.t, frame.z): frame for frame in record.frames}, objects)
