"""What a step of a job is. To add one: a file beside this one, and its line in `registry`.

    whole frames      segment, levels included
    stitched stacks   survey -> segment -> stitch -> finish -> level-1 -> level-2 -> ...
                      frame     block      stitch group    block     each halves the one below

A step begins when the one before it is done everywhere: a job is a short list of passes. What is
pending is read off the records, from the end: what a later step lacks is what an earlier one owes.
So the steps of levels make those of whole frames as well that are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from engine.plan.plan import StackPlan
from engine.steps.task import Outcome, TaskRun
from engine.store.folder import JobFolder

IsMine = Callable[[int], bool]  # whether this run segments a block


def all_mine(block: int) -> bool:
    """Of a run that is no array task, every block."""
    return True


class Step(Protocol):
    """One pass over the units of every stack. Each is a task, with a record that commits it."""

    @property
    def name(self) -> str:
        """What tasks, timings and attempts are filed under."""

    @property
    def reads_input(self) -> bool:
        """Whether it reads inputs, and so may hang; other steps read what the job itself wrote."""

    def pending(
        self, stack: StackPlan, folder: JobFolder, is_mine: IsMine = all_mine
    ) -> Iterator[int]:
        """Numbers of the units without a valid record, in order."""

    def carry_out(self, run: TaskRun) -> Outcome:
        """Do one unit and commit it. Safe to repeat: the same bytes again."""
