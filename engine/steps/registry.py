"""The steps of a job, in order, and how a task finds its own."""

from __future__ import annotations

from engine.plan.plan import Plan
from engine.steps.base import Step
from engine.steps.finish import Finish
from engine.steps.hangs import Pulse
from engine.steps.level import PREFIX, Level
from engine.steps.segment import Segment
from engine.steps.stitch import Stitch
from engine.steps.survey import Survey
from engine.steps.task import Outcome, Task, TaskRun
from engine.steps.worker import folder_of, model_of

STEPS: tuple[Step, ...] = (Survey(), Segment(), Stitch(), Finish())


def steps_of(plan: Plan) -> tuple[Step, ...]:
    """All steps of a job, in order."""
    most = max(array.levels for stack in plan.stacks for array in stack.arrays)
    return (*STEPS, *map(Level, range(1, most)))


def step_of(name: str) -> Step:
    """The step of a name."""
    if name.startswith(PREFIX):
        return Level(int(name.removeprefix(PREFIX)))
    return next(step for step in STEPS if step.name == name)


def carry_out(task: Task, pulse: Pulse | None = None, deaths: int = 0) -> Outcome:
    """Do one task in this thread; it gives its signs of life to `pulse`.

    `deaths`: processes that have died at it before.
    """
    folder, model = folder_of(task.context), model_of(task.context)
    run = TaskRun(task, folder, model, pulse or Pulse(), attempts=1 + deaths)
    return step_of(task.step).carry_out(run)
