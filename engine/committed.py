"""What of a stack is committed: records whose data are there, block by block, level by level."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from engine.arrays import level_layout, sources
from engine.layout import Block
from engine.plan import StackPlan
from engine.records import JobFolder


def shards(folder: JobFolder, plan: StackPlan, block: Block, level: int = 0) -> dict[str, Path]:
    """Where a block's shards lie, by kind of array; those that have this level."""
    layout = level_layout(plan.layout, level)
    store = folder.store(plan.name)
    return {
        array.kind: store / array.key(layout, block, level)
        for array in plan.arrays
        if level < array.levels
    }


def block_record(folder: JobFolder, plan: StackPlan, block: Block) -> dict[str, Any] | None:
    """The record of a block, None where it is not committed: it is done again then.

    A record that cannot be read, or whose shards or objects are gone, commits nothing.
    """
    content = folder.read_json(folder.place("records", plan.name, block.index))
    if content is None or not _is_whole(folder, plan, block, content):
        return None
    if "frames" in content:  # a block of whole frames has its measures
        if len(content["frames"]) != block.n_frames:
            return None
        if not folder.place("objects", plan.name, block.index, ".parquet").is_file():
            return None
    return content


def level_record(
    folder: JobFolder, plan: StackPlan, block: Block, level: int
) -> dict[str, Any] | None:
    """The record of a block of a level; None where it was made of anything but what is below."""
    content = folder.read_json(folder.place(f"levels/{level}", plan.name, block.index))
    if content is None or not _is_whole(folder, plan, block, content, level):
        return None
    return content if content.get("made_of") == made_of(folder, plan, block, level) else None


def made_of(folder: JobFolder, plan: StackPlan, block: Block, level: int) -> str:
    """Hash over the checksums of all shards below a block of a level; "" where one has none."""
    digest = hashlib.sha256()
    for source, _, _ in sources(level_layout(plan.layout, level - 1), block):
        record = source_record(folder, plan, source, level - 1)
        for array in plan.arrays:
            if level < array.levels:
                if not isinstance(told := record.get(array.checksum), str):
                    return ""
                digest.update(f"{array.kind} {source.index} {told}\n".encode())
    return digest.hexdigest()


def source_place(folder: JobFolder, plan: StackPlan, source: Block, level: int) -> Path:
    """Where the record of a block lies that the next level is made of."""
    kind = f"levels/{level}" if level else "records"
    return folder.place(kind, plan.name, source.index)


def source_record(folder: JobFolder, plan: StackPlan, source: Block, level: int) -> dict[str, Any]:
    """What is recorded of that block; empty where nothing is."""
    return folder.read_json(source_place(folder, plan, source, level)) or {}


def _is_whole(
    folder: JobFolder, plan: StackPlan, block: Block, record: dict[str, Any], level: int = 0
) -> bool:
    told = all(a.checksum in record for a in plan.arrays if level < a.levels)
    return told and all(path.is_file() for path in shards(folder, plan, block, level).values())
