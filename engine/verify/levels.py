"""The levels of a result: their records, their shards, and whether they are of what lies below."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from engine.arrays import level_layout, sources
from engine.layout import Block
from engine.verify.problems import Problem
from engine.verify.shards import read_shard
from engine.verify.view import StackView


def check_levels(view: StackView, *, has_ended: bool) -> Iterator[Problem]:
    """Problems of every block of every level above level 0."""
    for level in range(1, max(array.levels for array in view.arrays)):
        for block in level_layout(view.layout, level).blocks():
            yield from _check(view, block, level, has_ended=has_ended)


def _check(view: StackView, block: Block, level: int, *, has_ended: bool) -> Iterator[Problem]:
    path = view.level_record(block.index, level)
    where = view.of_block(block, level)

    def tell(what: str) -> Problem:
        return Problem("record", view.relative(path), what, where, view.name, block.index)

    if not path.exists():
        if has_ended:
            yield tell("the record is gone")
        return
    record = view.folder.read_json(path)
    if record is None:
        yield tell("the record cannot be read")
    elif record.get("block") != block.index:
        yield tell(f"the record is that of block {record.get('block')}")
        record = None
    problems: list[Problem] = []
    for array in view.arrays:
        if level < array.levels:
            read_shard(view, block, array, level, record, problems)
    yield from problems
    below = _made_of(view, block, level)
    if record is not None and has_ended and below and record.get("made_of") != below:
        yield tell("the level was made of other labels than those below it")


def _made_of(view: StackView, block: Block, level: int) -> str:
    """What the record should tell, of the records below; "" where one of those is damaged."""
    digest = hashlib.sha256()
    for source, _, _ in sources(level_layout(view.layout, level - 1), block):
        path = view.level_record(source.index, level - 1) if level > 1 else view.record(source)
        record: dict[str, Any] = view.folder.read_json(path) or {}
        for array in view.arrays:
            if level < array.levels:
                if not isinstance(told := record.get(array.checksum), str):
                    return ""
                digest.update(f"{array.kind} {source.index} {told}\n".encode())
    return digest.hexdigest()
