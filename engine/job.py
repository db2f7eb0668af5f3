"""Carries out a job: plan, claim the folder, run the steps that have no record, report."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from engine import __version__, retry
from engine.claim import check, check_writable, claim, completing, lock
from engine.errors import JobStopped, OutputError
from engine.executors import Executor, dask_cluster, dask_in_process
from engine.interrupts import INTERRUPTED, graceful_stop
from engine.plan import StackPlan, check_apart
from engine.precheck import measured_halo_error
from engine.prepare import Prepared, check_device, identity, prepare_job, prepare_merge
from engine.progress import Progress, SilentProgress
from engine.records import JobFolder
from engine.report import files as report
from engine.settings import JobSettings
from engine.steps import STEPS
from engine.steps.whole import shard_path
from engine.steps.work import Task
from engine.store import metadata_files
from engine.todo import todo
from engine.worker import JobContext, keep_model, release, runtime_for, warm_up

SEGMENTING = ("survey", "segment")  # what shards share; one run does the other steps
log = logging.getLogger("stackseg")


@dataclass(frozen=True)
class JobSummary:
    """How a job, or this run of it, ended."""

    exit_status: int
    already_complete: bool
    waiting: bool  # this shard is done, and others are not
    frames_done: int  # of the whole job, earlier runs included
    frames_failed: int
    objects: int
    frames_in_this_run: int
    seconds: float  # of this run
    frames_per_second: float  # of this run
    missing_chunks: int  # that inputs lack, and that were read as background
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
        cluster = None
        if settings.scheduler and executor is None:
            executor = cluster = stack.enter_context(dask_cluster(settings.scheduler))
        site = cluster.site(settings.device) if cluster else None
        job = check_device(prepare_job(settings, site), cluster)
        stack.callback(release)
        if cluster is None:
            keep_model(job.model)
            # A model that the runtime refuses is refused now, before anything is written.
            warm_up(_context(job, ""), {s.info.dtype for s in job.plan.stacks})
        for warning in (*job.plan.warnings, *_halo_errors(job, cluster is None)):
            log.warning(warning)
        folder = JobFolder(settings.output)
        check_apart(job.plan, settings.output)
        return _claim_and_run(job, folder, executor, progress, stack)


def merge_job(folder: JobFolder, progress: Progress | None = None) -> JobSummary:
    """Complete a job whose blocks were done by shards: stitch, and write the tables."""
    progress = progress or SilentProgress()
    job = prepare_merge(folder)
    with ExitStack() as stack:
        stack.callback(release)
        keep_model(job.model)
        stack.enter_context(lock(folder))
        claim(folder, identity(job), fresh=False, alone=True)
        if (ended := report.read(folder)) is not None:
            return _summary(job, ended, already_complete=True)
        if missing := _missing(job, folder):
            raise OutputError(f"{folder.root}: not all shards are done: {missing}; run those first")
        executor = stack.enter_context(dask_in_process(job.plan.workers))
        run = _Run(job, folder, _context(job, folder.identity_hash()), executor, progress)
        return run.carry_out(STEPS, complete=True)


def _claim_and_run(
    job: Prepared,
    folder: JobFolder,
    executor: Executor | None,
    progress: Progress,
    stack: ExitStack,
) -> JobSummary:
    settings, wanted = job.settings, identity(job)
    shard = settings.shard.replace("/", "-of-") if settings.shard else ""
    if settings.retry_failed:
        stack.enter_context(lock(folder))
        retry.readmit(folder, job, wanted)
    else:
        check(folder, wanted, fresh=settings.fresh)
        stack.enter_context(lock(folder, shard))
    claim(folder, wanted, fresh=settings.fresh, alone=not shard)
    folder.keep_settings(settings.model_dump(mode="json"))
    context = _context(job, folder.identity_hash())
    folder.forget_stop(context.stop)
    if (ended := report.read(folder)) is not None:
        if not (settings.retry_failed and ended["counts"]["failed"]):
            return _summary(job, ended, already_complete=True)
        folder.remove(folder.root / "job.json")  # no longer complete
    if executor is None:
        executor = stack.enter_context(dask_in_process(job.plan.workers))
    run = _Run(job, folder, context, executor, progress)
    if not shard:
        return run.carry_out(STEPS, complete=True)
    return _carry_out_shard(run)


def _carry_out_shard(run: _Run) -> JobSummary:
    """A shard's own blocks; the last shard to end completes the job."""
    summary = run.carry_out(SEGMENTING, complete=False)
    if summary.exit_status == INTERRUPTED or _missing(run.job, run.folder):
        return summary
    with completing(run.folder) as mine:
        if not mine:
            return summary
        if (ended := report.read(run.folder)) is not None:
            return _summary(run.job, ended, run.told)
        whole = run.job.settings.model_copy(update={"shard": None})
        job = replace(run.job, settings=whole)
        rest = _Run(job, run.folder, run.context, run.executor, run.progress, run.told)
        return rest.carry_out(STEPS, complete=True)


def _missing(job: Prepared, folder: JobFolder) -> str:
    """Blocks that no shard has segmented yet, in words; empty where there are none."""
    parts = []
    for stack in job.plan.stacks:
        blocks = list(todo("segment", stack, folder, job.model.spec))
        if blocks:
            more = f" and {len(blocks) - 5} more" if len(blocks) > 5 else ""
            listed = ", ".join(map(str, blocks[:5]))
            parts.append(f"block(s) {listed}{more} of {stack.name}")
    return "; ".join(parts[:5])


def _halo_errors(job: Prepared, in_process: bool) -> Iterator[str]:
    # What a halo changes does not depend on the device; a cluster's may not be there here.
    context = _context(job, "") if in_process else replace(_context(job, ""), device="cpu")
    return measured_halo_error(job.model, job.plan, partial(runtime_for, context))


def _context(job: Prepared, identity_sha256: str) -> JobContext:
    shard = job.settings.shard
    return JobContext(
        version=__version__,
        output=str(job.settings.output.resolve()),
        identity_sha256=identity_sha256,
        stop=f"stop-{shard.replace('/', '-of-')}" if shard else "stop",
        model_path=str(job.model.path),
        model_sha256=job.model.sha256,
        device=job.site.device,
        runtime=job.site.runtime,
        caution=job.site.caution,
        threads=job.plan.threads,
        rules=job.plan.rules,
        in_flight=job.plan.workers,
    )


class _Run:
    """One run of a job, from the records that are there to those that it adds."""

    def __init__(
        self,
        job: Prepared,
        folder: JobFolder,
        context: JobContext,
        executor: Executor,
        progress: Progress,
        told: report.Run | None = None,
    ) -> None:
        self.job, self.folder, self.context = job, folder, context
        self.executor, self.progress = executor, progress
        self.told = told or report.Run(started=time.time())

    def carry_out(self, steps: tuple[str, ...], *, complete: bool) -> JobSummary:
        """Do what is left of `steps`; with `complete`, write the tables where nothing is."""
        job, folder = self.job, self.folder
        begin = time.perf_counter()
        before = _before(job, folder)
        try:
            self._write_metadata()
            showing = self.progress.showing(job.plan.n_frames, before.frames, before.objects)
            with graceful_stop(folder, self.context.stop, job.settings.grace), showing:
                for step in steps:
                    tasks = self._tasks(step)
                    if (first := next(tasks, None)) is None:
                        continue
                    for outcome in self.executor.run(itertools.chain([first], tasks)):
                        self.told.frames += outcome.frames
                        self.progress.advance(outcome)
                    if folder.stopping(self.context.stop):
                        break
                stopped = folder.stopping(self.context.stop) and self._is_left(steps)
            self.told.seconds += time.perf_counter() - begin
            ended = report.write(folder, job, self.told) if complete and not stopped else None
        except OutputError as error:
            raise JobStopped(str(error)) from error
        except MemoryError as error:
            raise JobStopped(
                f"{folder.root}: the memory is used up; run the same command again with fewer "
                "--workers or a smaller --tile to go on"
            ) from error
        return _summary(job, ended, self.told, waiting=not complete and not stopped)

    def _tasks(self, step: str) -> Iterator[Task]:
        for stack, is_mine in self._shares():
            only = retry.failed_frames(self.folder, self.job, stack) if step == "segment" else {}
            for block, frames in only.items():
                yield Task(self.context, stack, step, block, only=frames)
            for index in todo(step, stack, self.folder, self.job.model.spec, is_mine):
                yield Task(self.context, stack, step, index)

    def _shares(self) -> Iterator[tuple[StackPlan, Any]]:
        """Each stack, with what tells whether a block of it is this run's."""
        number, count = self.job.settings.shard_of
        before = 0
        for stack in self.job.plan.stacks:
            start = before
            yield stack, lambda block, start=start: (start + block) % count == number - 1
            before += stack.layout.n_blocks

    def _is_left(self, steps: tuple[str, ...]) -> bool:
        spec = self.job.model.spec
        return any(
            any(True for _ in todo(step, stack, self.folder, spec, is_mine))
            for step in steps
            for stack, is_mine in self._shares()
        )

    def _write_metadata(self) -> None:
        job = self.job
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
            store = self.folder.root / f"{stack.name}.zarr"
            name = stack.name.rpartition("/")[2]
            files = metadata_files(name, stack.info, stack.layout, job.model.spec, made_with)
            for key, data in files.items():
                if not (store / key).exists():
                    self.folder.put(store / key, data)


@dataclass(frozen=True)
class _Before:
    """What earlier runs of a job have committed."""

    frames: float
    objects: int


def _before(job: Prepared, folder: JobFolder) -> _Before:
    frames, objects = 0.0, 0
    for stack in job.plan.stacks:
        layout = stack.layout
        pixels = layout.sizes[2] * layout.sizes[3]
        for block in layout.blocks():
            shard = shard_path(folder.root, stack, job.model.spec, block)
            record = folder.record(stack.name, block, shard)
            part = folder.place("work/parts", stack.name, block.index)
            if record is not None or part.exists():
                frames += block.n_frames * block.y.size * block.x.size / pixels
            objects += sum(row.get("objects") or 0 for row in (record or {}).get("frames", ()))
    return _Before(frames, objects)


def _summary(
    job: Prepared,
    ended: dict[str, Any] | None,
    run: report.Run | None = None,
    *,
    already_complete: bool = False,
    waiting: bool = False,
) -> JobSummary:
    counts = ended["counts"] if ended else {"frames": 0, "failed": 0, "objects": 0}
    refused = tuple(reason for _, reason in job.plan.refused)
    failed = bool(counts["failed"] or refused)
    seconds = run.seconds if run else 0.0
    return JobSummary(
        exit_status=int(failed) if ended or waiting else INTERRUPTED,
        already_complete=already_complete,
        waiting=waiting,
        frames_done=counts["frames"],
        frames_failed=counts["failed"],
        objects=counts["objects"],
        frames_in_this_run=round(run.frames) if run else 0,
        seconds=seconds,
        frames_per_second=run.frames / seconds if run and seconds else 0.0,
        missing_chunks=counts.get("missing_chunks", 0),
        stacks=tuple(str(job.settings.output / f"{s.name}.zarr") for s in job.plan.stacks),
        refused=refused,
    )
