"""Objects that nobody owns: shards outside of the array, records of no block, leftovers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from engine.geometry.arrays import ResultArray, level_layout
from engine.geometry.layout import LabelLayout
from engine.results.verify.problems import Problem
from engine.results.verify.stack import JobStack
from engine.store.committed import store_of
from engine.store.folder import PRIVATE, JobFolder, key_of

STRAY = "belongs to no block"
_NUMBERED = re.compile(r"(levels/\d+|\w+)/(.+)/(\d+)\.\w+")  # kind, stack, number


def check_strays(folder: JobFolder, stacks: Sequence[JobStack]) -> Iterator[Problem]:
    """Objects among the shards and among the records that no block owns."""
    for stack in stacks:
        for array in stack.arrays:
            for level in range(array.levels):
                yield from _stray_shards(stack, array, level)
    yield from _stray_records(folder, stacks)


def _stray_shards(stack: JobStack, array: ResultArray, level: int) -> Iterator[Problem]:
    layout, store = level_layout(stack.layout, level), store_of(stack.name)
    for key in stack.folder.results.list(f"{store}/{array.path(level)}"):
        own = key.removeprefix(f"{store}/")
        if own != f"{array.path(level)}/zarr.json" and not _is_shard(array, layout, level, own):
            yield stack.problem("stray", stack.folder.name_of(key), STRAY)


def _is_shard(array: ResultArray, layout: LabelLayout, level: int, key: str) -> bool:
    axes = array.shape(layout).axes
    try:
        at = dict(zip(axes, map(int, key.split("/")[-len(axes) :]), strict=True))
    except ValueError:
        return False
    position = (at.get("T", 0), at.get("Z", 0), at["Y"], at["X"])
    if not all(0 <= place < size for place, size in zip(position, layout.grid, strict=True)):
        return False
    # What is spelt otherwise, as "00", is nobody's.
    return key == array.key(layout, layout.block(layout.number(position)), level)


def _stray_records(folder: JobFolder, stacks: Sequence[JobStack]) -> Iterator[Problem]:
    counts = {stack.name: _counts(stack) for stack in stacks}
    for kind in ("records", "stitched", "objects", "levels"):
        suffix = ".parquet" if kind == "objects" else ".json"
        for key in folder.own.list(f"{PRIVATE}/{kind}"):
            parts = _NUMBERED.fullmatch(key.removeprefix(f"{PRIVATE}/"))
            filed, name, number = parts.groups() if parts else (kind, "", "0")
            count = counts.get(name, {}).get(filed, 0)
            if int(number) >= count or key != key_of(filed, name, int(number), suffix):
                yield Problem("stray", key, STRAY, f"stack {name}" if name else "", name)


def _counts(stack: JobStack) -> dict[str, int]:
    """How many objects of each kind a stack has."""
    layout = stack.layout
    groups = layout.n_stitch_groups if layout.is_stitched else 0
    counts = {"records": layout.n_blocks, "stitched": groups, "objects": groups or layout.n_blocks}
    for level in range(1, stack.n_levels):
        counts[f"levels/{level}"] = level_layout(layout, level).n_blocks
    return counts


def leftovers(folder: JobFolder) -> Iterator[str]:
    """What a complete job no longer needs, in words; harmless."""
    for name in ("staging", "work", "attempts"):
        key = f"{PRIVATE}/{name}"
        if count := sum(1 for _ in folder.own.list(key)):
            yield f"{key}: {count} files are left over; they are harmless and can be removed"
