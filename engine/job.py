"""Carries out a job: plan, claim the folder, run the blocks that have no record, report."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from engine import __version__
from engine.block import BlockTask, JobContext, keep_model, release, shard_path, warm_up
from engine.errors import JobStopped, OutputError
from engine.executors import Executor, dask_cluster, dask_in_process
from engine.plan import StackPlan, check_apart
from engine.prepare import Prepared, identity, prepare_job
from engine.progress import Progress, SilentProgress
from engine.records import JobFolder, check_writable
from engine.report import files as report
from engine.settings import JobSettings
from engine.store import metadata_files

INTERRUPTED = 130
log = logging.getLogger("stackseg")


@dataclass(frozen=True)
class JobSummary:
    """How a job, or this run of it, ended."""

    exit_status: int
    already_complete: bool
    frames_done: int  # of the whole job, earlier runs included
    frames_failed: int
    objects: int
    frames_in_this_run: int
    seconds: float  # of this run
    frames_per_second: float  # of this run
    stacks: tuple[str, ...]  # paths of the results
    refused: tuple[str, ...]  # a sentence for each input that could not be opened


def run_job(
    settings: JobSettings,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> JobSummary:
    """Carry out a job, or go on with it. `executor` overrides what the settings choose."""
    progress = progress or SilentProgress()
    check_writable(settings.output)
    with ExitStack() as stack:
        site = None
        if settings.scheduler and executor is None:
            executor = cluster = stack.enter_context(dask_cluster(settings.scheduler))
            site = cluster.site(settings.device)
        job = prepare_job(settings, site)
        stack.callback(release)
        if site is None:
            keep_model(job.model)
            # A model that the runtime refuses is refused now, before anything is written.
            warm_up(_context(job, ""), {s.info.dtype for s in job.plan.stacks})
        for warning in job.plan.warnings:
            log.warning(warning)
        folder = JobFolder(settings.output)
        check_apart(job.plan, settings.output)
        folder.check(identity(job), fresh=settings.fresh)
        stack.enter_context(folder.lock())
        folder.claim(identity(job), fresh=settings.fresh)
        if (ended := report.read(folder)) is not None:
            return _summary(job, ended, already_complete=True)
        context = _context(job, folder.identity_hash())
        if executor is None:
            executor = stack.enter_context(dask_in_process(job.plan.workers))
        return _carry_out(job, context, folder, executor, progress)


def _context(job: Prepared, identity_sha256: str) -> JobContext:
    return JobContext(
        version=__version__,
        output=str(job.settings.output.resolve()),
        identity_sha256=identity_sha256,
        model_path=str(job.model.path),
        model_sha256=job.model.sha256,
        device=job.site.device,
        runtime=job.site.runtime,
        threads=job.plan.threads,
        rules=job.plan.rules,
        in_flight=job.plan.workers,
    )


def _write_metadata(folder: JobFolder, job: Prepared) -> None:
    for stack in job.plan.stacks:
        made_with = {
            "version": __version__,
            "model": job.model.spec.name,
            "model_sha256": job.model.sha256,
            "runtime": job.site.runtime,
            "threshold": job.plan.rules.threshold,
            "min_area": job.plan.rules.min_area,
            "channels": list(stack.channels),
        }
        store = folder.root / f"{stack.name}.zarr"
        name = stack.name.rpartition("/")[2]
        files = metadata_files(name, stack.info, stack.layout, job.model.spec, made_with)
        for key, data in files.items():
            if not (store / key).exists():
                folder.put(store / key, data)


def _carry_out(
    job: Prepared, context: JobContext, folder: JobFolder, executor: Executor, progress: Progress
) -> JobSummary:
    run = report.Run(started=time.time(), frames=0)
    begin = time.perf_counter()
    before = _survey(job, folder)
    tasks = (BlockTask(context, stack, stack.layout.block(i)) for stack, i in before.pending)
    try:
        _write_metadata(folder, job)
        showing = progress.showing(job.plan.n_frames, before.frames, before.objects)
        with _graceful_stop(folder), showing:
            for outcome in executor.run(tasks):
                run.frames += outcome.frames
                progress.advance(outcome)
            stopped = folder.stopping() and bool(_survey(job, folder).pending)
        run.seconds = time.perf_counter() - begin
        ended = None if stopped else report.write(folder, job, run)
    except OutputError as error:
        raise JobStopped(str(error)) from error
    except MemoryError as error:
        raise JobStopped(
            f"{folder.root}: the memory is used up; run the same command again with fewer "
            "--workers or a smaller --tile to go on"
        ) from error
    return _summary(job, ended, run)


@dataclass(frozen=True)
class _Survey:
    """What earlier runs of a job have committed, and what is left."""

    pending: list[tuple[StackPlan, int]]
    frames: int
    objects: int


def _survey(job: Prepared, folder: JobFolder) -> _Survey:
    pending, frames, objects = [], 0, 0
    for stack in job.plan.stacks:
        for block in stack.layout.blocks():
            shard = shard_path(folder.root, stack, job.model.spec, block)
            record = folder.record(stack.name, block, shard)
            if record is None:
                pending.append((stack, block.index))
            else:
                frames += block.n_frames
                objects += sum(row.get("objects") or 0 for row in record["frames"])
    return _Survey(pending, frames, objects)


def _summary(
    job: Prepared,
    ended: dict[str, Any] | None,
    run: report.Run | None = None,
    *,
    already_complete: bool = False,
) -> JobSummary:
    counts = ended["counts"] if ended else {"frames": 0, "failed": 0, "objects": 0}
    refused = tuple(reason for _, reason in job.plan.refused)
    failed = bool(counts["failed"] or refused)
    seconds = run.seconds if run else 0.0
    return JobSummary(
        exit_status=int(failed) if ended else INTERRUPTED,
        already_complete=already_complete,
        frames_done=counts["frames"],
        frames_failed=counts["failed"],
        objects=counts["objects"],
        frames_in_this_run=run.frames if run else 0,
        seconds=seconds,
        frames_per_second=run.frames / seconds if run and seconds else 0.0,
        stacks=tuple(str(job.settings.output / f"{s.name}.zarr") for s in job.plan.stacks),
        refused=refused,
    )


@contextmanager
def _graceful_stop(folder: JobFolder) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks for a stop after the blocks in flight; a second insists."""

    def handle(number: int, frame: Any) -> None:
        if folder.stopping():
            # Threads at a block cannot be interrupted, and what they do commits itself or not.
            print("stackseg: stopped at once; the same command goes on", file=sys.stderr)
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        with suppress(OSError):  # a folder that is gone stops the job by itself
            folder.ask_to_stop()
        log.info("stopping after the blocks in flight; interrupt again to stop at once")

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
