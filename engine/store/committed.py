"""What of a stack is committed: records whose data are there, block by block, level by level."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol

from engine.geometry.arrays import ResultArray, level_layout, sources
from engine.geometry.layout import Block, LabelLayout
from engine.plan.plan import StackPlan
from engine.store.folder import JobFolder


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
    content = folder.read_json(record_place(folder, plan.name, block.index))
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
    content = folder.read_json(record_place(folder, plan.name, block.index, level))
    if content is None or not _is_whole(folder, plan, block, content, level):
        return None
    return content if content.get("made_of") == made_of(folder, plan, block, level) else None


def record_place(folder: JobFolder, stack: str, index: int, level: int = 0) -> Path:
    """Where the record of a block of a level lies."""
    return folder.place(f"levels/{level}" if level else "records", stack, index)


class Leveled(Protocol):
    """A stack whose levels are made: as planned, or as `verify` sees it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def layout(self) -> LabelLayout:
        """Layout of level 0."""

    @property
    def arrays(self) -> tuple[ResultArray, ...]:
        """Its arrays."""


def made_of(folder: JobFolder, stack: Leveled, block: Block, level: int) -> str:
    """Hash over the checksums of all shards below a block of a level; "" where one has none."""
    digest = hashlib.sha256()
    for source, _, _ in sources(level_layout(stack.layout, level - 1), block):
        record = folder.read_json(record_place(folder, stack.name, source.index, level - 1)) or {}
        for array in stack.arrays:
            if level < array.levels:
                if not isinstance(told := record.get(array.checksum), str):
                    return ""
                digest.update(f"{array.kind} {source.index} {told}\n".encode())
    return digest.hexdigest()


def _is_whole(
    folder: JobFolder, plan: StackPlan, block: Block, record: dict[str, Any], level: int = 0
) -> bool:
    told = all(a.checksum in record for a in plan.arrays if level < a.levels)
    return told and all(path.is_file() for path in shards(folder, plan, block, level).values())
