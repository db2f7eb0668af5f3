"""A frame that is cut into regions: its statistics first, since they are the whole frame's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from engine.errors import FrameError
from engine.model.statistics import windowed_statistics
from engine.stacks.windows import windows_of
from engine.steps.missing import check_frame
from engine.steps.work import Outcome, Work


def survey_frame(work: Work) -> Outcome:
    """Read a frame window by window; keep its statistics, and whether it can be read at all."""
    plan = work.plan
    t, z = plan.layout.frame_of(work.task.index)
    row: dict[str, Any] = {"t": t, "z": z}
    try:
        row.update(status="ok", **work.tried(t, z, lambda: _survey(work, t, z)))
    except FrameError as error:
        row.update(status="failed", reason=str(error))
    work.check_identity()
    work.put_timings()
    work.folder.put_json(work.folder.place("work/survey", plan.name, work.task.index), row)
    return Outcome(plan.name, work.task.step, work.task.index, seconds=work.watch.seconds)


def _survey(work: Work, t: int, z: int) -> dict[str, Any]:
    plan = work.plan
    stack = work.stack
    digests: list[Any] = []

    def windows() -> Iterator[NDArray[Any]]:
        digests.append(hashlib.sha256())  # one for each time that the frame is gone through
        for rows, columns in windows_of(plan.info):
            work.pulse.beat()
            pixels = stack.read_window(t, z, plan.all_channels, rows, columns)
            digests[-1].update(pixels.data)
            yield plan.seen_by_model(pixels)

    with work.watch.stage("statistics"):
        check_frame(stack, plan, t, z)
        statistics = windowed_statistics(windows, work.model.spec.normalisation)
        return {
            "statistics": statistics.tolist(),
            "sha256": digests[0].hexdigest(),
            "missing_chunks": stack.missing_chunks(t, z, plan.all_channels),
        }
