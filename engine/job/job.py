"""A job from its settings to its end: prepare, claim the folder, run; job arrays; merging."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from engine import __version__
from engine.errors import INTERRUPTED, OutputError
from engine.job import retry_failed
from engine.job.added import list_labels
from engine.job.executors import Executor, cluster_of, dask_in_process
from engine.job.fast import prepare_checked
from engine.job.preflight import measured_halo_error
from engine.job.prepare import Prepared, identity, prepare_merge
from engine.job.progress import Progress
from engine.job.run import JobSummary, Run, summarise
from engine.plan.resources import size_text
from engine.plan.settings import JobSettings
from engine.runtimes.base import Target
from engine.runtimes.registry import resolve, runtime_of
from engine.steps.registry import STEPS, steps_of
from engine.steps.segment import Segment
from engine.steps.worker import JobContext, keep_model, release, session_for, warm_up
from engine.store.claim import check, check_writable, claim, completing, lock
from engine.store.committed import store_of
from engine.store.destination import check_apart, foreign_files
from engine.store.folder import IDENTITY, REPORT, STOP, TABLES, JobFolder
from engine.store.ome_zarr import metadata_keys
from engine.store.reports import JobReport

# What tasks of a job array share: one does the other steps.
SEGMENTING = tuple(step for step in STEPS if step.reads_input)
log = logging.getLogger("stackseg")


def run_job(
    settings: JobSettings,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> JobSummary:
    """Carry out a job, or resume it. `executor` overrides what the settings choose."""
    progress = progress or Progress()
    folder = JobFolder(settings.output)
    if settings.fresh or settings.retry_failed or folder.report() is None:
        check_writable(settings.output)
    with ExitStack() as stack:
        cluster = None
        if executor is None:
            executor = cluster = stack.enter_context(cluster_of(settings))
        job = prepare_checked(settings, cluster)
        stack.callback(release)
        if cluster is None:
            keep_model(job.model)
            # A model that the runtime refuses is refused now, before anything is written.
            job = replace(job, engines=warm_up(job_context(job, ""), job.plan.stacks))
        elif runtime_of(job.site.target.runtime).builds_engines:
            # One worker builds what all of its machine load.
            what = (job_context(job, ""), job.plan.stacks)
            job = replace(job, engines=cluster.somewhere(warm_up, *what))
        for warning in (*job.plan.warnings, *_halo_errors(job, cluster is None)):
            log.warning(warning)
        check_apart(job.plan, settings.output)
        return _claim_and_run(job, folder, executor, progress, stack)


def merge_job(folder: JobFolder, progress: Progress | None = None) -> JobSummary:
    """Complete a job whose blocks were done by a job array: stitch, and write the tables."""
    progress = progress or Progress()
    job = prepare_merge(folder)
    with ExitStack() as stack:
        stack.callback(release)
        keep_model(job.model)
        stack.enter_context(lock(folder))
        claim(folder, identity(job), fresh=False, alone=True)
        folder.forget_stop(STOP)
        report = folder.report()
        if report is not None and not (lost := _lost(job, folder, report)):
            return summarise(job, report, already_complete=True)
        if missing := _missing(job, folder):
            raise OutputError(
                f"{folder.root}: not all array tasks are done ({missing}); run those first"
            )
        if report is not None:
            _begin_again(folder, lost)
        executor = stack.enter_context(dask_in_process(job.plan.workers))
        run = Run(job, folder, job_context(job, folder.identity_hash()), executor, progress)
        return run.carry_out(steps_of(job.plan), complete=True)


def run_prepared(
    job: Prepared, folder: JobFolder, progress: Progress, stack: ExitStack
) -> JobSummary:
    """Carry out a job that needs no network, in this process, or resume it."""
    check_writable(folder.root)
    stack.callback(release)
    return _claim_and_run(job, folder, None, progress, stack)


def _claim_and_run(
    job: Prepared,
    folder: JobFolder,
    executor: Executor | None,
    progress: Progress,
    stack: ExitStack,
) -> JobSummary:
    settings, wanted = job.settings, identity(job)
    array_task = settings.array_task_name
    if settings.retry_failed:
        retry_failed.check_begun(folder)
        stack.enter_context(lock(folder))
        retry_failed.readmit(folder, job, wanted)
    else:
        check(folder, wanted, fresh=settings.fresh)
        if not settings.fresh and (done := _complete_and_read_only(job, folder)):
            return done
        if others := foreign_files(settings, job.plan):
            log.warning(others)
        stack.enter_context(lock(folder, array_task))
    claim(folder, wanted, fresh=settings.fresh, alone=not array_task)
    if job.stores:  # what is begun again is no longer named
        list_labels(JobFolder(job.stores), wanted.stacks, folder)
    folder.keep_settings(settings)
    context = job_context(job, folder.identity_hash())
    folder.forget_stop(context.stop)
    if (report := folder.report()) is not None:
        again = settings.retry_failed and report.counts.failed
        if not again and not (lost := _lost(job, folder, report)):
            return summarise(job, report, already_complete=True)
        if again:
            folder.own.delete(REPORT)
        else:
            _begin_again(folder, lost)
    if executor is None:
        executor = stack.enter_context(dask_in_process(job.plan.workers))
    _warn_of_disk(job)
    run = Run(job, folder, context, executor, progress)
    if not array_task:
        return run.carry_out(steps_of(job.plan), complete=True)
    return _carry_out_array_task(run)


def _complete_and_read_only(job: Prepared, folder: JobFolder) -> JobSummary | None:
    """How a complete job in a folder that takes no writes has ended; None where it takes them.

    OutputError where something is left to do.
    """
    try:
        check_writable(folder.root)
    except OutputError as error:
        if (report := folder.report()) is None:
            raise
        if lost := _lost(job, folder, report):
            raise OutputError(f"{error}, and its job is no longer complete: {lost}") from error
        return summarise(job, report, already_complete=True)
    return None


def _carry_out_array_task(run: Run) -> JobSummary:
    """An array task's own blocks; the last task to end completes the job."""
    summary = run.carry_out(SEGMENTING, complete=False)
    if summary.exit_status == INTERRUPTED or _missing(run.job, run.folder):
        return summary
    with completing(run.folder) as mine:
        if not mine:
            return summary
        if (report := run.folder.report()) is not None:
            return summarise(run.job, report, run.totals)
        whole = run.job.settings.model_copy(update={"array_task": None})
        job = replace(run.job, settings=whole)
        rest = Run(job, run.folder, run.context, run.executor, run.progress, run.totals)
        return rest.carry_out(steps_of(job.plan), complete=True)


def _begin_again(folder: JobFolder, lost: str) -> None:
    """Say what a job that was complete has lost since, and take away what says that it is."""
    log.warning("%s: was complete, and is no longer: %s", folder.root, lost)
    folder.own.delete(REPORT)


def _lost(job: Prepared, folder: JobFolder, report: JobReport) -> str:
    """What a complete job lacks, in words: it is made again. Contents are for `verify`."""
    if report.files_sha256.get(IDENTITY) != folder.identity_hash():
        return f"{IDENTITY} is that of a repaired input, and {REPORT} has another checksum"
    for key in TABLES:
        if not folder.own.exists(key):
            return f"{key} is gone"
    steps = steps_of(job.plan)
    for stack in job.plan.stacks:
        for key in metadata_keys(stack.arrays, added=folder.is_added):
            if not folder.results.exists(place := f"{store_of(stack.name)}/{key}"):
                return f"{place} is gone"
        for step in steps:
            for index in step.pending(stack, folder):
                return f"{stack.name} lacks number {index} of the step {step.name}"
    return ""


def _missing(job: Prepared, folder: JobFolder) -> str:
    """Blocks that no array task has segmented yet, in words; empty where there are none."""
    parts = []
    for stack in job.plan.stacks:
        blocks = list(Segment().pending(stack, folder))
        if blocks:
            more = f" and {len(blocks) - 5} more" if len(blocks) > 5 else ""
            listed = ", ".join(map(str, blocks[:5]))
            parts.append(f"block(s) {listed}{more} of {stack.name}")
    return "; ".join(parts[:5])


def _warn_of_disk(job: Prepared) -> None:
    """A night's work should not find out at the end that the disk is too small."""
    place = job.settings.output.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < job.plan.disk_bytes:
        log.warning(
            "%s has %s free, and the labels may take %s; a full disk stops the job, and the same "
            "command resumes it once there is room",
            place, size_text(free), size_text(job.plan.disk_bytes),
        )  # fmt: skip


def _halo_errors(job: Prepared, in_process: bool) -> Iterator[str]:
    # What a halo changes does not depend on the device; a cluster's may not be there here.
    context = job_context(job, "")
    if not in_process:
        target = resolve(Target(device="cpu"))
        context = replace(context, target=target, build=runtime_of(target.runtime).build(target))
    sessions = partial(session_for, context)
    return measured_halo_error(job.model, job.plan, sessions, job.settings.timeout)


def job_context(job: Prepared, identity_sha256: str) -> JobContext:
    """What every block of a job needs to know; `identity_sha256` is "" where none is committed."""
    array_task = job.settings.array_task_name
    return JobContext(
        version=__version__,
        output=str(job.settings.output.resolve()),
        identity_sha256=identity_sha256,
        stop=f"{STOP}-{array_task}" if array_task else STOP,
        model_path=str(job.model.path),
        model_sha256=job.model.sha256,
        target=job.site.target,
        build=job.site.build,
        engines=job.engines,
        threads=job.plan.threads,
        in_flight=job.plan.workers,
        stores=str(job.stores.resolve()) if job.stores else "",
        spec=job.model.spec if job.relabels else None,
        timeout=job.settings.timeout,
        is_shared=job.settings.array_task is not None,
    )
