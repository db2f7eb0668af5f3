"""What of a stack is committed: records whose data are there, block by block, level by level."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from engine.geometry.arrays import ResultArray, level_layout, sources
from engine.geometry.layout import Block, LabelLayout, StitchGroup
from engine.store.folder import JobFolder, key_of
from engine.store.records import BlockRecord, LevelRecord, StitchRecord


class Stored(Protocol):
    """A stack of a job: as planned, or as `verify` reads it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def layout(self) -> LabelLayout:
        """Layout of level 0."""

    @property
    def arrays(self) -> tuple[ResultArray, ...]:
        """Its arrays."""


def store_of(stack: str) -> str:
    """Key of a stack's result, below which its shards and metadata lie."""
    return f"{stack}.zarr"


def shard_keys(stack: Stored, block: Block, level: int = 0) -> dict[str, str]:
    """Keys of a block's shards, by kind of array; those that have this level."""
    layout = level_layout(stack.layout, level)
    return {
        array.kind: f"{store_of(stack.name)}/{array.key(layout, block, level)}"
        for array in stack.arrays
        if level < array.levels
    }


def record_key(stack: str, index: int, level: int = 0) -> str:
    """Key of the record of a block of a level."""
    return key_of(f"levels/{level}" if level else "records", stack, index)


def stitch_key(stack: str, index: int) -> str:
    """Key of the record of a stitch group."""
    return key_of("stitched", stack, index)


def objects_key(stack: str, index: int) -> str:
    """Key of a part of the objects table: of a block of whole frames, or of a stitch group."""
    return key_of("objects", stack, index, ".parquet")


def block_record(folder: JobFolder, stack: Stored, block: Block) -> BlockRecord | None:
    """The record of a block, None where it is not committed: it is done again then.

    A record that cannot be read, or whose shards or objects are gone, commits nothing.
    """
    record = folder.record(BlockRecord, record_key(stack.name, block.index))
    if record is None or not _is_whole(folder, stack, block, record):
        return None
    if record.frames is not None:  # a block of whole frames has its measures
        whole = len(record.frames) == block.n_frames
        if not whole or not folder.own.exists(objects_key(stack.name, block.index)):
            return None
    return record


def unfinished(folder: JobFolder, stack: Stored) -> Iterator[int]:
    """Numbers of the blocks without final labels."""
    for block in stack.layout.blocks():
        if block_record(folder, stack, block) is None:
            yield block.index


def stitch_record(folder: JobFolder, stack: str, group: StitchGroup) -> StitchRecord | None:
    """The record of a stitch group, None where it is not committed."""
    record = folder.record(StitchRecord, stitch_key(stack, group.index))
    if record is None or not folder.own.exists(objects_key(stack, group.index)):
        return None
    return record if len(record.frames) == len(list(group.frames)) else None


def level_record(folder: JobFolder, stack: Stored, block: Block, level: int) -> LevelRecord | None:
    """The record of a block of a level; None where it was made of anything but what is below."""
    record = folder.record(LevelRecord, record_key(stack.name, block.index, level))
    if record is None or not _is_whole(folder, stack, block, record, level):
        return None
    return record if record.parents == parents_hash(folder, stack, block, level) else None


def parents_hash(folder: JobFolder, stack: Stored, block: Block, level: int) -> str:
    """Hash over the checksums on record of all shards below a block of a level; see `hash_of`."""
    below = (source.index for source, _, _ in sources(level_layout(stack.layout, level - 1), block))
    return hash_of(
        stack, level, ((i, shard_checksums(folder, stack.name, i, level - 1)) for i in below)
    )


def hash_of(stack: Stored, level: int, below: Iterable[tuple[int, Mapping[str, str]]]) -> str:
    """Hash over the checksums of shards that a block of a level is made of; "" where one has none.

    `below`: the number of each block of the level below, in order, and its checksums by kind.
    """
    digest = hashlib.sha256()
    for index, checksums in below:
        for array in stack.arrays:
            if level < array.levels:
                if array.kind not in checksums:
                    return ""
                digest.update(f"{array.kind} {index} {checksums[array.kind]}\n".encode())
    return digest.hexdigest()


def shard_checksums(folder: JobFolder, stack: str, index: int, level: int = 0) -> dict[str, str]:
    """Checksums on record of a block's shards, by kind of array; none where it has no record."""
    kind: type[BlockRecord | LevelRecord] = LevelRecord if level else BlockRecord
    record = folder.record(kind, record_key(stack, index, level))
    return record.shards if record else {}


def record_keys(stack: Stored) -> Iterator[str]:
    """Keys of every record that commits a part of a stack: blocks, stitch groups, levels."""
    for block in range(stack.layout.n_blocks):
        yield record_key(stack.name, block)
    if stack.layout.is_stitched:
        for group in range(stack.layout.n_stitch_groups):
            yield stitch_key(stack.name, group)
    for level in range(1, max(array.levels for array in stack.arrays)):
        for block in range(level_layout(stack.layout, level).n_blocks):
            yield record_key(stack.name, block, level)


def records_hash(folder: JobFolder, stacks: Sequence[Stored]) -> str:
    """Hash over the bytes of every record of a complete job, each with its key, in order.

    Kept in job.json. A record that is gone or cannot be read counts as none, and changes the hash.
    """
    digest = hashlib.sha256()
    for stack in stacks:
        for key in record_keys(stack):
            try:
                content = hashlib.sha256(folder.own.get(key)).hexdigest()
            except OSError:
                content = "none"
            digest.update(f"{key} {content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _is_whole(
    folder: JobFolder,
    stack: Stored,
    block: Block,
    record: BlockRecord | LevelRecord,
    level: int = 0,
) -> bool:
    keys = shard_keys(stack, block, level)
    return keys.keys() <= record.shards.keys() and all(map(folder.results.exists, keys.values()))
