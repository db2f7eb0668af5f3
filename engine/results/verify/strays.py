"""Files that nobody owns: shards outside of the array, records of no block, leftovers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from engine.geometry.arrays import ResultArray, level_layout
from engine.geometry.layout import LabelLayout
from engine.results.verify.problems import Problem
from engine.results.verify.view import StackView
from engine.store.folder import JobFolder


def check_strays(view: StackView) -> Iterator[Problem]:
    """Files in the label array's folder, and among the records, that no block owns."""
    for array in view.arrays:
        for level in range(array.levels):
            yield from _stray_shards(view, array, level)
    layout = view.layout
    stitch_groups = layout.n_stitch_groups if layout.is_stitched else 0
    levels = max(array.levels for array in view.arrays)
    for kind, suffix, count in (
        ("records", ".json", layout.n_blocks),
        ("stitched", ".json", stitch_groups),
        ("objects", ".parquet", stitch_groups or layout.n_blocks),
        *((f"levels/{k}", ".json", level_layout(layout, k).n_blocks) for k in range(1, levels)),
    ):
        folder = view.folder.private / kind / view.name
        for entry in os.scandir(folder) if folder.is_dir() else ():
            # A stack in a folder of this name has its own below this one.
            name, path = Path(entry.name), Path(entry.path)
            if entry.is_dir():
                continue
            number = int(name.stem) if name.stem.isdecimal() and name.stem.isascii() else -1
            if not 0 <= number < count or path != view.folder.place(
                kind, view.name, number, suffix
            ):
                what = "belongs to no block"
                yield Problem("stray", view.relative(path), what, f"stack {view.name}", view.name)


def _stray_shards(view: StackView, array: ResultArray, level: int) -> Iterator[Problem]:
    folder = view.store / array.path(level)
    layout = level_layout(view.layout, level)
    for path in _files(folder):
        key = path.relative_to(folder).as_posix()
        if key != "zarr.json" and not _is_shard(array, layout, key):
            yield Problem(
                "stray", view.relative(path), "belongs to no block", f"stack {view.name}", view.name
            )


def leftovers(folder: JobFolder) -> Iterator[str]:
    """What a complete job no longer needs, in words; harmless."""
    for name in ("staging", "work", "attempts"):
        count = sum(1 for _ in _files(folder.private / name))
        if count:
            path = (folder.private / name).relative_to(folder.root).as_posix()
            yield f"{path}: {count} files are left over; they are harmless and can be removed"


def _is_shard(array: ResultArray, layout: LabelLayout, key: str) -> bool:
    first, *places = key.split("/")
    grid = dict(zip("TZYX", layout.grid, strict=True)) | {"C": 1}
    sizes = [grid[axis] for axis in array.shape(layout).axes]
    if first != "c" or len(places) != len(sizes):
        return False
    return all(
        place.isascii() and place.isdecimal() and place == str(int(place)) and int(place) < size
        for place, size in zip(places, sizes, strict=True)
    )


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder; memory does not grow with how many there are in all."""
    if not folder.is_dir():
        return
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        else:
            yield Path(entry.path)
