"""A stack of a job as its folder tells it: neither the input nor the model has to be there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.geometry.arrays import LABELS, ResultArray, arrays_from, level_layout
from engine.geometry.layout import Block, LabelLayout, layout_from
from engine.results.verify.problems import Problem
from engine.store.committed import record_place
from engine.store.folder import JobFolder

Frame = tuple[int, int]  # t, z
MOST_BLOCKS = 10**8  # a petabyte of labels; more is a damaged identity


@dataclass(frozen=True)
class Group:
    """Frames whose rows are one record and whose objects are one part: a block or stitch group."""

    kind: str  # "block" or "stitch group"
    index: int
    frames: tuple[Frame, ...]
    blocks: tuple[int, ...]
    record: Path
    part: Path
    where: str


@dataclass(frozen=True)
class StackView:
    """One stack's labels, records and parts."""

    name: str
    layout: LabelLayout
    arrays: tuple[ResultArray, ...]  # labels first
    folder: JobFolder
    measured_channels: int  # of the stack: each has its columns in the objects table

    @property
    def gives_instances(self) -> bool:
        """Whether labels are ids; else they are a class map."""
        return self.layout.gives_instances

    @property
    def labels(self) -> ResultArray:
        """The label array."""
        return self.arrays[0]

    @property
    def store(self) -> Path:
        """The stack's result."""
        return self.folder.store(self.name)

    def shard(self, block: Block, array: ResultArray | None = None, level: int = 0) -> Path:
        """Where a block's shard lies; of the labels unless `array` is given."""
        layout = level_layout(self.layout, level)
        return self.store / (array or self.labels).key(layout, block, level)

    def record(self, block: Block) -> Path:
        """Where the record of a block lies."""
        return record_place(self.folder, self.name, block.index)

    def relative(self, path: Path) -> str:
        """A path as problems tell it."""
        return Path(os.path.relpath(path, self.folder.root)).as_posix()

    def groups(self) -> Iterator[Group]:
        """All groups, in order of their frames."""
        layout, place = self.layout, self.folder.place
        kind = "stitched" if layout.is_stitched else "records"
        for one in layout.stitch_groups() if layout.is_stitched else layout.blocks():
            blocks = (one.index,) if isinstance(one, Block) else one.blocks
            word = "block" if isinstance(one, Block) else "stitch group"
            yield Group(
                word, one.index, tuple(one.frames), blocks,
                place(kind, self.name, one.index),
                place("objects", self.name, one.index, ".parquet"),
                f"stack {self.name}, {word} {one.index}, {self._span(one.t, one.z)}",
            )  # fmt: skip

    def of_block(self, block: Block, level: int = 0) -> str:
        """A block in words."""
        of = f" of level {level}" if level else ""
        text = f"stack {self.name}, block {block.index}{of}, {self._span(block.t, block.z)}"
        if self.layout.is_cut:
            text += f", y={block.y.start}:{block.y.stop}, x={block.x.start}:{block.x.stop}"
        return text

    def of_frame(self, t: int, z: int) -> str:
        """A frame in words."""
        return f"stack {self.name}, {self._span((t, t + 1), (z, z + 1))}"

    def _span(self, t: tuple[int, int], z: tuple[int, int]) -> str:
        spans = [("t", t)] + ([("z", z)] if "Z" in self.layout.axes else [])
        return ", ".join(
            f"{name}={first}" if stop - first == 1 else f"{name}={first}..{stop - 1}"
            for name, (first, stop) in spans
        )


def view_of(folder: JobFolder, identity: dict[str, Any], name: str) -> StackView | Problem:
    """The view of a stack, or what is wrong with the identity that should tell it."""
    path = folder.identity_path.relative_to(folder.root).as_posix()
    try:
        layout = layout_from(identity["stacks"][name]["layout"])
        arrays = arrays_from(identity["stacks"][name]["arrays"])
        channels = identity["stacks"][name]["measured_channels"]
        numbers = (*layout.shape, *layout.block_size, *layout.chunk_size, channels)
        if not arrays or arrays[0].kind != LABELS or arrays[0].dtype != layout.dtype:
            raise ValueError("no array of labels")
        if not all(isinstance(n, int) and n > 0 for n in numbers) or layout.n_blocks < 1:
            raise ValueError("sizes that are not positive")
        if not all(isinstance(n, int) and n >= 0 for n in (layout.t0, layout.z0)):
            raise ValueError("a first frame that is none")
        if layout.n_blocks > MOST_BLOCKS:
            raise ValueError(f"{layout.n_blocks:,} blocks")
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        what = f"does not tell how its labels lie ({error})"
        return Problem("record", path, what, f"stack {name}", name)
    return StackView(name, layout, arrays, folder, channels)
