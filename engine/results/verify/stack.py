"""A stack of a job as its identity describes it: neither the input nor the model is needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.geometry.arrays import LABELS, ResultArray
from engine.geometry.layout import Block, LabelLayout, StitchGroup
from engine.results.verify.problems import Problem
from engine.store.folder import JobFolder
from engine.store.identity import StackIdentity

MOST_BLOCKS = 10**8  # a petabyte of labels; more is a damaged identity
Group = Block | StitchGroup  # what one record has the frames of, and one part the objects


@dataclass(frozen=True)
class JobStack:
    """One stack with its labels, records and parts. See `engine.store.committed.Stored`."""

    name: str
    layout: LabelLayout
    arrays: tuple[ResultArray, ...]  # labels first
    folder: JobFolder

    @property
    def labels(self) -> ResultArray:
        """The label array: the class map where there is one."""
        return self.arrays[0]

    @property
    def label_images(self) -> tuple[ResultArray, ...]:
        """Its labels, and the objects beside a class map."""
        return tuple(array for array in self.arrays if array.is_labels)

    @property
    def has_objects(self) -> bool:
        """Whether there are objects, or a class map alone."""
        return any(array.gives_instances for array in self.arrays)

    @property
    def n_levels(self) -> int:
        """Levels of the array that has the most, level 0 included."""
        return max(array.levels for array in self.arrays)

    def groups(self) -> Iterator[Group]:
        """Blocks, or stitch groups of a stitched stack, in order of their frames."""
        return self.layout.stitch_groups() if self.layout.is_stitched else self.layout.blocks()

    def problem(
        self, kind: str, path: str, what: str, where: str = "", index: int | None = None
    ) -> Problem:
        """A problem of this stack; `where` in it."""
        place = f"stack {self.name}, {where}" if where else f"stack {self.name}"
        return Problem(kind, path, what, place, self.name, index)

    def place_of(self, group: Group, level: int = 0) -> str:
        """A block or stitch group in words."""
        frames = self.span(group.t, group.z)
        if isinstance(group, StitchGroup):
            return f"stitch group {group.index}, {frames}"
        text = f"block {group.index}{f' of level {level}' if level else ''}, {frames}"
        if self.layout.is_cut:
            text += f", y={group.y.start}:{group.y.stop}, x={group.x.start}:{group.x.stop}"
        return text

    def span(self, t: tuple[int, int], z: tuple[int, int]) -> str:
        """Frames in words; ranges are half-open."""
        spans = [("t", t)] + ([("z", z)] if "Z" in self.layout.axes else [])
        return ", ".join(
            f"{name}={first}" if stop - first == 1 else f"{name}={first}..{stop - 1}"
            for name, (first, stop) in spans
        )


def blocks_of(group: Group) -> tuple[int, ...]:
    """Numbers of a group's blocks."""
    return (group.index,) if isinstance(group, Block) else group.blocks


def job_stack(folder: JobFolder, name: str, identity: StackIdentity) -> JobStack:
    """A stack by its identity; ValueError or LookupError where no job could have such a stack."""
    layout, arrays = identity.layout, identity.arrays
    sizes = (*layout.sizes, *layout.block_size, *layout.chunk_size)
    has_labels = (arrays[0].kind, arrays[0].dtype) == (LABELS, layout.dtype)
    if not has_labels or min(sizes) < 1 or layout.n_blocks > MOST_BLOCKS:
        raise ValueError(f"the layout of stack {name} is none of a job")
    return JobStack(name, layout, arrays, folder)
