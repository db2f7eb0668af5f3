"""The steps `level-1`, `level-2`, ...: arrays that have the level, halved from what lies below.

Blocks of whole frames make their own levels (`engine.steps.whole`); these steps make those of
others, and whichever were lost or have gone stale since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from engine.geometry.arrays import ResultArray, level_layout, sources
from engine.geometry.layout import Block, LabelLayout
from engine.geometry.pyramid import halved
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
        plan, level = run.plan, self.level
        block = level_layout(plan.layout, level).block(run.task.index)
        parents = parents_hash(run.folder, plan, block, level)
        record = put_level(run, block, level, parents, _encoded(run, block, level))
        run.commit(record_key(plan.name, block.index, level), record)
        return run.outcome()


def put_level(
    run: TaskRun, block: Block, level: int, parents: str, encoded: Iterable[tuple[str, bytes]]
) -> LevelRecord:
    """Put the shards of a block of a level, by kind of array; the record that will commit them."""
    keys, checksums = shard_keys(run.plan, block, level), {}
    for kind, data in encoded:
        with run.watch.stage("write"):
            run.check_identity()
            run.folder.results.put(keys[kind], data)
        checksums[kind] = hashlib.sha256(data).hexdigest()
    return LevelRecord(block=block.index, parents=parents, shards=checksums)


def _encoded(run: TaskRun, block: Block, level: int) -> Iterator[tuple[str, bytes]]:
    for array in (a for a in run.plan.arrays if level < a.levels):
        with run.watch.stage("levels"):
            encoded = _from_below(run, array, block, level).encode()
        yield array.kind, encoded


def _from_below(run: TaskRun, array: ResultArray, block: Block, level: int) -> ShardOnItsWay:
    """An array's shard of the block, filled from the shards below, one after the other."""
    layout = level_layout(run.plan.layout, level)
    below = level_layout(run.plan.layout, level - 1)
    out = ShardOnItsWay(array.shape(layout))
    n_t, n_z = block.t[1] - block.t[0], block.z[1] - block.z[0]
    for source, rows, columns in sources(below, block):
        inside = (slice(0, source.y.size), slice(0, source.x.size))
        # Plane by plane: what is decoded, and what halving needs on its way, stays small.
        for at, plane in _planes(run, array, below, source, level - 1):
            if at[0] < n_t and at[-1] < n_z:
                out.put(at, halved(array, plane[inside]), (rows.start, columns.start))
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
