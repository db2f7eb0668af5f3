"""The step `segment`: from pixels to labels, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

from engine.plan.plan import StackPlan
from engine.steps.base import IsMine, all_mine
from engine.steps.frame import Source
from engine.steps.kept import Kept
from engine.steps.network import Network
from engine.steps.part import pending_parts, segment_part
from engine.steps.survey import surveyed
from engine.steps.task import Outcome, TaskRun
from engine.steps.whole import segment_whole
from engine.store.committed import unfinished
from engine.store.folder import JobFolder


class Segment:
    """Whole frames get their final labels; parts of frames get local ones, which are stitched."""

    name = "segment"
    reads_input = True

    def pending(
        self, stack: StackPlan, folder: JobFolder, is_mine: IsMine = all_mine
    ) -> Iterator[int]:
        """Blocks without labels."""
        if stack.layout.is_stitched:
            yield from pending_parts(stack, folder, is_mine)
        else:
            yield from filter(is_mine, unfinished(folder, stack))

    def carry_out(self, run: TaskRun) -> Outcome:
        """Do a block."""
        whole = not run.plan.layout.is_stitched
        return (segment_whole if whole else segment_part)(run, source_of(run))


def source_of(run: TaskRun) -> Source:
    """Where the probabilities of the task's block come from."""
    if run.plan.source:
        return Kept(run, run.block)
    if not run.plan.layout.is_cut:
        return Network(run, run.block)
    return Network(run, run.block, lru_cache(maxsize=1)(partial(surveyed, run)))
