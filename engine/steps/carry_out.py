"""Which step a task is."""

from __future__ import annotations

from engine.plan.phases import level_of
from engine.steps.finish import finish_block
from engine.steps.hangs import Pulse
from engine.steps.level import make_level
from engine.steps.part import segment_part
from engine.steps.stitch import stitch_blocks
from engine.steps.survey import survey_frame
from engine.steps.whole import segment_whole
from engine.steps.work import Outcome, Task, Work
from engine.steps.worker import folder_of, model_of


def carry_out(task: Task, pulse: Pulse | None = None, deaths: int = 0) -> Outcome:
    """Do one task here; it gives its signs of life to `pulse`."""
    folder = folder_of(task.context)
    work = Work(task, folder, model_of(task.context), pulse or Pulse(), attempts=1 + deaths)
    if level_of(task.step) is not None:
        return make_level(work)
    if task.step == "survey":
        return survey_frame(work)
    if task.step == "stitch":
        return stitch_blocks(work)
    if task.step == "finish":
        return finish_block(work)
    return segment_part(work) if task.stack.layout.is_stitched else segment_whole(work)
