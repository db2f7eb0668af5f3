"""The steps `level-1`, `level-2`, ...: arrays that have the level, halved from what lies below."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from engine.geometry.arrays import IMAGE, ResultArray, level_layout, sources
from engine.geometry.layout import Block, LabelLayout
from engine.geometry.pyramid import halve_image, halve_labels
from engine.plan.plan import StackPlan
from engine.steps.base import IsMine, all_mine
from engine.steps.task import Outcome, TaskRun
from engine.store.committed import (
    level_record,
    parents_hash,
    record_key,
    shard_checksums,
    shard_keys,
)
from engine.store.folder import JobFolder
from engine.store.object_store import get_checked
from engine.store.ome_zarr import ShardOnItsWay, planes_of
from engine.store.records import LevelRecord

PREFIX = "level-"


@dataclass(frozen=True)
class Level:
    """One level, from 1."""

    level: int
    reads_input = False

    @property
    def name(self) -> str:
        """See `engine.steps.base.Step`."""
        return f"{PREFIX}{self.level}"

    def pending(
        self, stack: StackPlan, folder: JobFolder, is_mine: IsMine = all_mine
    ) -> Iterator[int]:
        """Blocks of the level without a record, or whose parents have changed."""
        if any(self.level < array.levels for array in stack.arrays):
            for block in level_layout(stack.layout, self.level).blocks():
                if level_record(folder, stack, block, self.level) is None:
                    yield block.index

    def carry_out(self, run: TaskRun) -> Outcome:
        """Make a block of the level."""
        plan, folder, level = run.plan, run.folder, self.level
        layout = level_layout(plan.layout, level)
        block = layout.block(run.task.index)
        parents = parents_hash(folder, plan, block, level)
        checksums: dict[str, str] = {}
        keys = shard_keys(plan, block, level)
        for array in (a for a in plan.arrays if level < a.levels):
            with run.watch.stage("levels"):
                encoded = _halved(run, array, block, level).encode()
            with run.watch.stage("write"):
                run.check_identity()
                folder.results.put(keys[array.kind], encoded)
            checksums[array.kind] = hashlib.sha256(encoded).hexdigest()
        record = LevelRecord(block=block.index, parents=parents, shards=checksums)
        run.commit(record_key(plan.name, block.index, level), record)
        return run.outcome()


def _halved(run: TaskRun, array: ResultArray, block: Block, level: int) -> ShardOnItsWay:
    """An array's shard of the block, filled from the shards below, one after the other."""
    layout = level_layout(run.plan.layout, level)
    below = level_layout(run.plan.layout, level - 1)
    halve = halve_image if array.kind == IMAGE else halve_labels
    out = ShardOnItsWay(array.shape(layout))
    n_t, n_z = block.t[1] - block.t[0], block.z[1] - block.z[0]
    for source, rows, columns in sources(below, block):
        inside = (slice(0, source.y.size), slice(0, source.x.size))
        # Plane by plane: what is decoded, and what halving needs on its way, stays small.
        for at, plane in _planes(run, array, below, source, level - 1):
            if at[0] < n_t and at[-1] < n_z:
                out.put(at, halve(plane[inside]), (rows.start, columns.start))
    return out


def _planes(
    run: TaskRun, array: ResultArray, below: LabelLayout, source: Block, level: int
) -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
    """Planes of a shard of the level below; where it differs from its record, that record goes."""
    plan, folder = run.plan, run.folder
    key = shard_keys(plan, source, level)[array.kind]
    checksums = shard_checksums(folder, plan.name, source.index, level)
    try:
        data = get_checked(folder.results, key, checksums.get(array.kind))
        yield from planes_of(array.shape(below), data)
    except (OSError, ValueError) as error:
        record = record_key(plan.name, source.index, level)
        folder.discard([record], f"{folder.results.where(key)}: {error}")
