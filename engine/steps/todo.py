"""What of a job is still to be done, read off the records: step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from engine.geometry.arrays import LABELS, level_layout
from engine.plan.phases import level_of
from engine.plan.plan import StackPlan
from engine.store.committed import block_record, level_record, shards
from engine.store.folder import JobFolder


def todo(
    step: str,
    stack: StackPlan,
    folder: JobFolder,
    is_mine: Callable[[int], bool] = lambda block: True,
) -> Iterator[int]:
    """Numbers of what is to be done at a step: frames, blocks or stitch groups, in order.

    `is_mine` tells which blocks this run segments; the frames surveyed are those of these.
    """
    if (level := level_of(step)) is not None:
        return _unmade(stack, folder, level)
    if not stack.layout.is_stitched:
        blocks = _unfinished(stack, folder) if step == "segment" else iter(())
        return (block for block in blocks if is_mine(block))
    state = _Stitched(stack, folder, is_mine)
    return iter(
        {
            "survey": state.frames,
            "segment": state.parts,
            "stitch": state.stitch_groups,
            "finish": state.blocks,
        }[step]()
    )


def _unfinished(stack: StackPlan, folder: JobFolder) -> Iterator[int]:
    for block in stack.layout.blocks():
        if block_record(folder, stack, block) is None:
            yield block.index


def _unmade(stack: StackPlan, folder: JobFolder, level: int) -> Iterator[int]:
    """Blocks of a level without a record, or made of what is not below them any more."""
    if any(level < array.levels for array in stack.arrays):
        for block in level_layout(stack.layout, level).blocks():
            if level_record(folder, stack, block, level) is None:
                yield block.index


class _Stitched:
    """A stack whose labels are stitched: each step needs what the one before it leaves."""

    def __init__(
        self,
        stack: StackPlan,
        folder: JobFolder,
        is_mine: Callable[[int], bool],
    ) -> None:
        self._is_mine = is_mine
        self._stack, self._folder = stack, folder
        self._layout = stack.layout

    def _there(self, kind: str, index: int, suffix: str = ".json") -> bool:
        return self._folder.place(kind, self._stack.name, index, suffix).is_file()

    def blocks(self) -> list[int]:
        """Blocks without their final labels."""
        return list(_unfinished(self._stack, self._folder))

    def stitch_groups(self) -> list[int]:
        """Canvases without a record, and those whose ids a block still needs."""
        name = self._stack.name
        wanted = {
            stitch_group.index
            for stitch_group in self._layout.stitch_groups()
            if self._folder.stitch_record(name, stitch_group) is None
        }
        if self._stack.postprocessing.gives_instances:
            for block in self.blocks():
                if not self._there("work/maps", block, ".npy"):
                    wanted.add(self._layout.stitch_group_of(block))
        return sorted(wanted)

    def parts(self) -> list[int]:
        """Blocks whose provisional labels are needed and not there."""
        needed = set(self.blocks())
        for index in self.stitch_groups():
            needed.update(self._layout.stitch_group(index).blocks)
        mine = filter(self._is_mine, sorted(needed))
        return [block for block in mine if not self._has_part(block)]

    def _has_part(self, block: int) -> bool:
        kinds = (("work/labels", ".shard"), ("work/parts", ".npz"), ("work/parts", ".json"))
        kept = shards(self._folder, self._stack, self._layout.block(block))
        del kept[LABELS]
        return all(self._there(kind, block, suffix) for kind, suffix in kinds) and all(
            path.is_file() for path in kept.values()
        )

    def frames(self) -> list[int]:
        """Cut frames without their statistics."""
        if not self._layout.is_cut or self._stack.source:
            return []
        frames: set[int] = set()
        for index in self.parts():
            block = self._layout.block(index)
            frames.update(self._layout.frame_index(t, z) for t, z in block.frames)
        return [frame for frame in sorted(frames) if not self._there("work/survey", frame)]
