"""The step `survey`: statistics of whole frames that are cut, before any of their regions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from engine.errors import FrameError
from engine.model.statistics import windowed_statistics
from engine.plan.plan import StackPlan
from engine.stacks.base import windows_of
from engine.steps.base import IsMine, all_mine
from engine.steps.missing import check_frame
from engine.steps.part import pending_parts
from engine.steps.task import Outcome, TaskRun
from engine.store.folder import JobFolder, key_of
from engine.store.records import FrameRecord, SurveyRecord

KIND = "work/survey"


class Survey:
    """Reads each cut frame window by window."""

    name = "survey"
    reads_input = True

    def pending(
        self, stack: StackPlan, folder: JobFolder, is_mine: IsMine = all_mine
    ) -> Iterator[int]:
        """Cut frames without statistics, of the blocks that this run segments."""
        if not stack.layout.is_cut or stack.source:
            return
        frames: set[int] = set()
        for index in pending_parts(stack, folder, is_mine):
            block = stack.layout.block(index)
            frames.update(stack.layout.frame_index(t, z) for t, z in block.frames)
        for frame in sorted(frames):
            if not folder.own.exists(key_of(KIND, stack.name, frame)):
                yield frame

    def carry_out(self, run: TaskRun) -> Outcome:
        """Keep a frame's statistics, and whether it can be read at all."""
        t, z = run.plan.layout.frame_of(run.task.index)
        try:
            record = run.tried(t, z, lambda: survey_frame(run, t, z))
        except FrameError as error:
            failed = FrameRecord(t=t, z=z, status="failed", reason=str(error))
            record = SurveyRecord(frame=failed)
        run.check_identity()
        run.commit(key_of(KIND, run.plan.name, run.task.index), record)
        return run.outcome()


def survey_frame(run: TaskRun, t: int, z: int) -> SurveyRecord:
    """Statistics of a whole frame, read window by window; FrameError where it cannot be read."""
    plan, stack = run.plan, run.stack
    digests: list[Any] = []

    def windows() -> Iterator[NDArray[Any]]:
        digests.append(hashlib.sha256())  # one for each time that the frame is gone through
        for rows, columns in windows_of(plan.info):
            run.pulse.beat()
            pixels = stack.read_window(t, z, plan.channels_read, rows, columns)
            digests[-1].update(pixels.data)
            yield plan.model_input(pixels)

    with run.watch.stage("statistics"):
        check_frame(stack, plan, t, z)
        statistics = windowed_statistics(windows, run.model.spec.normalisation)
        frame = FrameRecord(
            t=t, z=z, status="ok", sha256=digests[0].hexdigest(),
            missing_chunks=stack.missing_chunks(t, z, plan.channels_read),
        )  # fmt: skip
    return SurveyRecord(frame=frame, statistics=statistics.tolist())


def surveyed(run: TaskRun, t: int, z: int) -> SurveyRecord:
    """The survey of a frame; JobStopped where it is damaged, and it goes."""
    key = key_of(KIND, run.plan.name, run.plan.layout.frame_index(t, z))
    record = run.folder.record(SurveyRecord, key)
    if record is None:
        run.folder.discard([key], "it cannot be read")
    return record
