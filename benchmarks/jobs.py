"""Whole jobs, timed from the first block on: start-up is left out, tables are not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.record import Cost, now, since
from benchmarks.ways import Way
from engine.job.executors import DaskExecutor, dask_in_process
from engine.job.job import run_job
from engine.job.progress import Progress
from engine.plan.resources import cores
from engine.plan.settings import JobSettings


class _Begun(Progress):
    """Notes when the first step began: sessions are there, and the device has been checked."""

    at: Cost | None = None

    def begin(self, step: str) -> None:
        """See `Progress`."""
        self.at = self.at or now()


@contextmanager
def executor(workers: int | None = None) -> Iterator[DaskExecutor]:
    """Dask in this process, as every job without a cluster has it; one for many jobs."""
    with dask_in_process(workers or cores()) as found:
        yield found


def settings_of(stack: Path, output: Path, way: Way, **options: Any) -> JobSettings:
    """A job on a stack that begins afresh."""
    return JobSettings(
        inputs=(str(stack),), model=way.model, output=output, fresh=True, device=way.device,
        runtime=way.runtime, precision=way.job_precision, **options,
    )  # fmt: skip


def cost_of(settings: JobSettings, by: DaskExecutor | None = None) -> Cost:
    """What a job takes from its first block to `job.json`."""
    begun = _Begun()
    summary = run_job(settings, begun, by)
    if begun.at is None or summary.frames_failed:
        raise SystemExit(f"{settings.output}: the job did not do what it should")
    return since(begun.at)
