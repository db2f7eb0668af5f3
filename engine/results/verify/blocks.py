"""A block read again: its record, its shards against their checksums, its labels counted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.errors import first_line
from engine.geometry.arrays import (
    IMAGE,
    LABELS,
    OBJECTS,
    PROBABILITY,
    ArrayShape,
    ResultArray,
    level_layout,
)
from engine.geometry.layout import Block
from engine.results.verify.areas import Areas, count_areas
from engine.results.verify.problems import Problem
from engine.results.verify.stack import JobStack
from engine.stacks.zarr.chunks import ShardIndex, absent
from engine.store.committed import parents_hash, record_key, shard_keys
from engine.store.folder import JobFolder, key_of
from engine.store.object_store import digest_of
from engine.store.ome_zarr import decode_shard
from engine.store.records import (
    BlockRecord,
    LevelRecord,
    PartRecord,
    RecordVersionError,
    StitchRecord,
    decode,
)

CONTENT = {
    LABELS: "labels",
    OBJECTS: "labels of objects",
    PROBABILITY: "probabilities",
    IMAGE: "pixels",
}
GONE = "the record is gone"
Committed = TypeVar("Committed", BlockRecord, StitchRecord, LevelRecord, PartRecord)


@dataclass
class BlockCheck:
    """What was found of a block of level 0."""

    block: Block
    is_committed: bool = True  # whether there is a record, damaged or not
    # By kind of label image; empty where one of them is not that of the record.
    areas: dict[str, Areas] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def check_block(stack: JobStack, index: int) -> BlockCheck:
    """Read a block of level 0. Any thread may do it."""
    check = BlockCheck(stack.layout.block(index))
    block, key = check.block, record_key(stack.name, index)

    def add(kind: str, path: str, damage: str) -> BlockCheck:
        check.problems.append(stack.problem(kind, path, damage, stack.place_of(block), index))
        return check

    record, damage = read_record(stack.folder, BlockRecord, key, index)
    if record is None:
        check.is_committed = damage != GONE
        return add("record", key, damage)
    data = _check_shards(stack, block, 0, record.shards, check.problems)
    if data is None:
        return check
    areas = {}
    for array in stack.label_images:
        path = stack.folder.name_of(shard_keys(stack, block)[array.kind])
        try:
            labels = decode_shard(array.shape(stack.layout), data[array.kind])
        except ValueError as error:
            what = CONTENT[array.kind]
            return add("shard", path, f"the {what} cannot be decoded ({first_line(error)})")
        areas[array.kind], beyond = _areas(stack, block, array, labels)
        if beyond:
            add("labels", path, f"{beyond} labels lie outside of the stack")
    check.areas = areas
    return check


def _areas(
    stack: JobStack, block: Block, array: ResultArray, labels: NDArray[Any]
) -> tuple[Areas, int]:
    """Areas of a block's labels, and how many pixels of labels lie outside of the stack."""
    inside = labels[
        : block.t[1] - block.t[0], : block.z[1] - block.z[0], : block.y.size, : block.x.size
    ]
    background = not array.gives_instances
    areas = count_areas(inside, block, stack.layout, background=background)
    return areas, int(np.count_nonzero(labels) - np.count_nonzero(inside))


def check_level(stack: JobStack, level: int, index: int, *, is_complete: bool) -> list[Problem]:
    """Problems of a block of a level above 0. Any thread may do it."""
    block = level_layout(stack.layout, level).block(index)
    key, where = record_key(stack.name, index, level), stack.place_of(block, level)
    record, damage = read_record(stack.folder, LevelRecord, key, index)
    if record is None:
        found = is_complete or damage != GONE
        return [stack.problem("record", key, damage, where, index)] if found else []
    problems: list[Problem] = []
    _check_shards(stack, block, level, record.shards, problems)
    with suppress(RecordVersionError):  # of a record below, which is named by itself
        parents = parents_hash(stack.folder, stack, block, level)
        # In a job that is not complete the level may be done again after blocks below it.
        if is_complete and parents and record.parents != parents:
            damage = "the level was made of other labels than those below it"
            problems.append(stack.problem("record", key, damage, where, index))
    return problems


def check_parts(stack: JobStack) -> Iterator[Problem]:
    """What a job that is not complete keeps until it is stitched, where it is not as recorded."""
    for block in stack.layout.blocks() if stack.layout.is_stitched else ():
        folder, name, index = stack.folder, stack.name, block.index
        record, _ = read_record(folder, PartRecord, key_of("work/parts", name, index), index)
        if record is None or folder.own.exists(record_key(name, index)):
            continue
        labels = (
            (key_of(f"work/{kind}", name, index, ".shard"), known)
            for kind, known in record.labels.items()
        )
        part = (key_of("work/parts", name, index, ".npz"), record.part_sha256)
        for key, known in (*labels, part):
            try:
                damage = "" if digest_of(folder.own, key) == known else "is not that of its record"
            except OSError as error:
                damage = f"cannot be read ({error.strerror or error})"
            if damage:
                yield stack.problem("shard", key, damage, stack.place_of(block), index)


def read_record(
    folder: JobFolder, kind: type[Committed], key: str, number: int
) -> tuple[Committed | None, str]:
    """A record, or None and what is wrong with it. `number` is that of what it commits."""
    try:
        record = decode(kind, folder.own.get(key), key)
    except FileNotFoundError:
        return None, GONE
    except (OSError, RecordVersionError) as error:
        return None, f"the record cannot be read ({first_line(error)})"
    if record is None:
        return None, "the record cannot be read"
    found = record.stitch_group if isinstance(record, StitchRecord) else record.block
    if found != number:
        return None, f"the record is that of number {found}"
    return record, ""


def _check_shards(
    stack: JobStack, block: Block, level: int, checksums: dict[str, str], problems: list[Problem]
) -> dict[str, bytes] | None:
    """Compare a block's shards with their checksums.

    The bytes of its label images, by kind, where all of these are right.
    """
    labels: dict[str, bytes] = {}
    layout = level_layout(stack.layout, level)
    shapes = {array.kind: array.shape(layout) for array in stack.arrays}
    for kind, key in shard_keys(stack, block, level).items():
        content, damage = CONTENT[kind], ""
        try:
            data = stack.folder.results.get(key)
            if hashlib.sha256(data).hexdigest() != checksums.get(kind):
                damage = f"the {content} are not those of the record: their SHA-256 differs"
            elif lost := _lost_chunks(shapes[kind], data):
                damage = f"{lost} chunks of the {content} are not there"
            elif kind in (LABELS, OBJECTS):
                labels[kind] = data
        except FileNotFoundError:
            damage = f"the {content} are gone"
        except (OSError, ValueError) as error:
            damage = f"the {content} cannot be read ({first_line(error)})"
        if damage:
            path, where = stack.folder.name_of(key), stack.place_of(block, level)
            problems.append(stack.problem("shard", path, damage, where, block.index))
    return labels if labels.keys() >= {array.kind for array in stack.label_images} else None


def _lost_chunks(shape: ArrayShape, data: bytes) -> int:
    """Chunks that a shard lacks, and that would be read as zeros; every one is written."""
    counts = (n // size for n, size in zip(shape.shard, shape.chunk, strict=True))
    return int(np.count_nonzero(absent(ShardIndex(tuple(counts)).entries(data))))
