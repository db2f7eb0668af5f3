"""The levels of a result: their records, their shards, and whether they are of what lies below."""

from __future__ import annotations

from collections.abc import Iterator

from engine.geometry.arrays import level_layout
from engine.geometry.layout import Block
from engine.results.verify.problems import Problem
from engine.results.verify.shards import read_shard
from engine.results.verify.view import StackView
from engine.store.committed import made_of, record_place


def check_levels(view: StackView, *, has_ended: bool) -> Iterator[Problem]:
    """Problems of every block of every level above level 0."""
    for level in range(1, max(array.levels for array in view.arrays)):
        for block in level_layout(view.layout, level).blocks():
            yield from _check(view, block, level, has_ended=has_ended)


def _check(view: StackView, block: Block, level: int, *, has_ended: bool) -> Iterator[Problem]:
    path = record_place(view.folder, view.name, block.index, level)
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
    below = made_of(view.folder, view, block, level)
    if record is not None and has_ended and below and record.get("made_of") != below:
        yield tell("the level was made of other labels than those below it")
