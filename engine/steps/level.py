"""A block of a level: each array that has the level, halved from what lies below."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from engine.geometry.arrays import IMAGE, ResultArray, level_layout, sources
from engine.geometry.layout import Block, LabelLayout
from engine.geometry.pyramid import halve_image, halve_labels
from engine.plan.phases import level_of
from engine.steps.work import Outcome, Work
from engine.store.committed import made_of, record_place, shards
from engine.store.folder import read_checked
from engine.store.ome_zarr import encode_shard, new_shard, planes_of


def make_level(work: Work) -> Outcome:
    """Make a block of a level and commit it. Safe to repeat: the same bytes again."""
    plan, folder = work.plan, work.folder
    level = level_of(work.task.step)
    assert level is not None
    layout = level_layout(plan.layout, level)
    block = layout.block(work.task.index)
    basis = made_of(folder, plan, block, level)
    checksums: dict[str, str] = {}
    places = shards(folder, plan, block, level)
    for array in (a for a in plan.arrays if level < a.levels):
        with work.watch.stage("levels"):
            encoded = encode_shard(array.shape(layout), _halved(work, array, block, level))
        with work.watch.stage("write"):
            work.check_identity()
            folder.put(places[array.kind], encoded)
        checksums[array.checksum] = hashlib.sha256(encoded).hexdigest()
    work.put_timings()
    record = {"block": block.index, "made_of": basis, **checksums}
    folder.put_json(record_place(folder, plan.name, block.index, level), record)
    return Outcome(plan.name, work.task.step, block.index, seconds=work.watch.seconds)


def _halved(work: Work, array: ResultArray, block: Block, level: int) -> NDArray[Any]:
    """An array's shard of the block, filled from the shards below, one after the other."""
    layout = level_layout(work.plan.layout, level)
    below = level_layout(work.plan.layout, level - 1)
    halve = halve_image if array.kind == IMAGE else halve_labels
    out = new_shard(array.shape(layout))
    window: tuple[int | slice, ...]
    n_t, n_z = block.t[1] - block.t[0], block.z[1] - block.z[0]
    for source, rows, columns in sources(below, block):
        inside = (slice(0, source.y.size), slice(0, source.x.size))
        # Plane by plane: what is decoded, and what halving needs on its way, stays small.
        for at, plane in _planes(work, array, below, source, level - 1):
            if at[0] < n_t and at[-1] < n_z:
                window = (*at, rows.as_slice(), columns.as_slice())
                out[window] = halve(plane[inside])
    return out


def _planes(
    work: Work, array: ResultArray, below: LabelLayout, source: Block, level: int
) -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
    """Planes of a shard of the level below; where it is not what its record tells, that goes."""
    plan, folder = work.plan, work.folder
    path = shards(folder, plan, source, level)[array.kind]
    record = record_place(folder, plan.name, source.index, level)
    try:
        data = read_checked(path, (folder.read_json(record) or {}).get(array.checksum))
        yield from planes_of(array.shape(below), data)
    except (OSError, ValueError) as error:
        folder.take_back([record], f"{path}: {error}")
