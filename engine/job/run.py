"""One run of a job: step by step, what has no record yet; then the tables."""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from engine import __version__
from engine.errors import INTERRUPTED, JobStopped, OutputError
from engine.job import retry_failed
from engine.job.added import label_names
from engine.job.executors import Executor
from engine.job.prepare import Prepared
from engine.job.progress import Progress
from engine.job.report import RunTotals, write_report
from engine.job.signals import graceful_stop
from engine.plan.plan import StackPlan
from engine.stacks.images.files import ONE_BY_ONE
from engine.steps.base import IsMine, Step
from engine.steps.hangs import MAX_HUNG_INPUTS, Frame, Hung, within
from engine.steps.part_store import PartStore
from engine.steps.task import Task
from engine.steps.worker import JobContext, check_unchanged
from engine.store.committed import block_record, store_of
from engine.store.folder import JobFolder
from engine.store.ome_zarr import LABEL_LIST, label_list, metadata_files, metadata_keys
from engine.store.reports import JobReport

log = logging.getLogger("stackseg")


@dataclass(frozen=True)
class JobSummary:
    """How a job, or this run of it, ended."""

    exit_status: int
    already_complete: bool
    waiting: bool  # this array task is done, and others are not
    frames_done: int  # of the whole job, earlier runs included
    frames_failed: int
    frames_unlike: int  # of those that failed: images unlike the first of their folder
    objects: int
    frames_in_this_run: int
    seconds: float  # of this run
    frames_per_second: float  # of this run
    missing_chunks: int  # that inputs lack, and that were read as background
    stacks: tuple[str, ...]  # paths of the results
    refused: tuple[str, ...]  # a sentence for each input that could not be opened


class Run:
    """One run of a job, from the records that are there to those that it adds."""

    def __init__(
        self,
        job: Prepared,
        folder: JobFolder,
        context: JobContext,
        executor: Executor,
        progress: Progress,
        totals: RunTotals | None = None,
    ) -> None:
        self.job, self.folder, self.context = job, folder, context
        self.executor, self.progress = executor, progress
        self.totals = totals or RunTotals(started=time.time())
        # Failed frames of committed blocks that are to be done again, by stack and block.
        self._again = {
            (stack.name, block): frames
            for stack in job.plan.stacks
            for block, frames in retry_failed.failed_frames(folder, job, stack).items()
        }
        self._hung: set[str] = set()  # stacks with frames that this run set aside since they hang

    def carry_out(self, steps: tuple[Step, ...], *, complete: bool) -> JobSummary:
        """Do what is left of `steps`; with `complete`, write the tables where nothing is."""
        job, folder = self.job, self.folder
        begin = time.perf_counter()
        frames, objects = _committed(job, folder, self._again)
        try:
            self._write_metadata()
            counted = objects if any(stack.instances for stack in job.plan.stacks) else None
            showing = self.progress.showing(job.plan.n_frames, frames, counted)
            with graceful_stop(folder, self.context.stop, job.settings.grace), showing:
                for step in steps:
                    tasks = self._tasks(step)
                    if (first := next(tasks, None)) is None:
                        continue
                    self.progress.begin(step.name)
                    for outcome in self.executor.run(itertools.chain([first], tasks)):
                        self.totals.frames += outcome.frames
                        self.totals.failed += len(outcome.failed)
                        if outcome.hangs:
                            self._hung.add(outcome.stack)
                        if step.name == "segment":
                            self._again.pop((outcome.stack, outcome.index), None)
                        self.progress.advance(outcome)
                    if folder.stopping(self.context.stop):
                        break
                stopped = folder.stopping(self.context.stop) and self._is_left(steps)
                folder.forget_stop(self.context.stop)
            if not stopped:
                self._check_inputs()
            self.totals.seconds += time.perf_counter() - begin
            report = write_report(folder, job, self.totals) if complete and not stopped else None
        except OutputError as error:
            raise JobStopped(str(error)) from error
        except MemoryError as error:
            raise JobStopped(
                f"{folder.root}: the memory is used up; run the same command again with fewer "
                "--workers or a smaller --tile"
            ) from error
        return summarise(job, report, self.totals, waiting=not complete and not stopped)

    def _check_inputs(self) -> None:
        """JobStopped where an input has changed: pixels written over raise no error when read."""
        in_a_row: Counter[Path] = Counter()  # by folder: inputs that hang
        for stack in self.job.plan.stacks:
            if not stack.reads_input:
                continue
            folder = Path(stack.path).parent
            if stack.name in self._hung and in_a_row[folder] >= MAX_HUNG_INPUTS:
                log.warning(
                    "%s: was not opened at the end, to see whether it is still what it was, since "
                    "it and others of its folder hang", stack.info.path,
                )  # fmt: skip
                continue
            try:
                within(self.job.settings.timeout, partial(check_unchanged, stack))
                in_a_row.pop(folder, None)
            except Hung as error:
                in_a_row[folder] += 1
                late = (
                    f"{stack.info.path}: could not be opened within {error.seconds:g} s at the end"
                )
                if stack.name not in self._hung:
                    raise JobStopped(
                        f"{late}; run the same command again once it can be read"
                    ) from error
                log.warning("%s, to see whether it is still what it was", late)

    def _tasks(self, step: Step) -> Iterator[Task]:
        by_stack: dict[str, dict[int, tuple[Frame, ...]]] = {}
        for (name, block), frames in self._again.items() if step.name == "segment" else ():
            by_stack.setdefault(name, {})[block] = frames
        for stack, is_mine in self._shares():
            again = by_stack.get(stack.name, {})
            for block, frames in again.items():
                yield Task(self.context, stack, step.name, block, only=frames)
            for index in step.pending(stack, self.folder, is_mine):
                if index not in again:
                    yield Task(self.context, stack, step.name, index)

    def _shares(self) -> Iterator[tuple[StackPlan, IsMine]]:
        """Each stack, and which of its blocks are this run's."""
        number, count = self.job.settings.array_share

        def is_mine(first: int, block: int) -> bool:
            return (first + block) % count == number - 1

        first = 0  # blocks are numbered through all stacks
        for stack in self.job.plan.stacks:
            yield stack, partial(is_mine, first)
            first += stack.layout.n_blocks

    def _is_left(self, steps: tuple[Step, ...]) -> bool:
        return bool(self._again) or any(
            any(True for _ in step.pending(stack, self.folder, is_mine))
            for step in steps
            for stack, is_mine in self._shares()
        )

    def _write_metadata(self) -> None:
        job, results = self.job, self.folder.results
        # A list of label images that was lost named what relabellings had added as well.
        names = {} if job.stores else label_names(self.folder)
        for stack in job.plan.stacks:
            keys = metadata_keys(stack.arrays, added=self.folder.is_added)
            missing = [k for k in keys if not results.exists(f"{store_of(stack.name)}/{k}")]
            if not missing:
                continue
            provenance = {
                "version": __version__,
                "model": job.model.spec.name,
                "model_sha256": job.model.sha256,
                "runtime": job.runtime,
                **asdict(stack.postprocessing),
                "channels": list(stack.channels),
            }
            if stack.window:
                provenance["window"] = list(stack.window)
            if stack.identifiers:
                provenance["identifiers"] = dict(stack.identifiers)
            files = metadata_files(
                stack.name.rpartition("/")[2],
                stack.info, stack.layout, stack.arrays, job.model.spec, provenance,
            )  # fmt: skip
            for key in missing:
                content = label_list(names[stack.name]) if key == LABEL_LIST else files[key]
                results.put(f"{store_of(stack.name)}/{key}", content)


def _committed(
    job: Prepared, folder: JobFolder, again: Container[tuple[str, int]]
) -> tuple[float, int]:
    """Frames and objects that earlier runs of a job have committed."""
    frames, objects = 0.0, 0
    for stack in job.plan.stacks:
        layout = stack.layout
        pixels, parts = layout.sizes[2] * layout.sizes[3], PartStore(folder, stack)
        for block in layout.blocks():
            if (stack.name, block.index) in again:
                continue
            record = block_record(folder, stack, block)
            if record is not None or folder.own.exists(parts.record_key(block.index)):
                frames += block.n_frames * block.y.size * block.x.size / pixels
            objects += record.n_objects if record else 0
    return frames, objects


def summarise(
    job: Prepared,
    report: JobReport | None,
    run: RunTotals | None = None,
    *,
    already_complete: bool = False,
    waiting: bool = False,
) -> JobSummary:
    """The summary of a complete job, or of a run that did not complete it (`report` is None)."""
    folder = JobFolder(job.settings.output, job.stores)
    frames = failed = unlike = objects = missing_chunks = 0
    if report is not None:
        counts = report.counts
        frames, failed, objects = counts.frames, counts.failed, counts.objects
        missing_chunks = counts.missing_chunks
        aside = folder.failures().frames if failed else ()
        unlike = sum(ONE_BY_ONE in frame.reason for frame in aside)
    elif run and waiting:  # an array task that waits for others counts its own
        frames, failed = round(run.frames), run.failed
    refused = tuple(reason for _, reason in job.plan.refused)
    seconds = run.seconds if run else 0.0
    return JobSummary(
        exit_status=int(bool(failed or refused)) if report or waiting else INTERRUPTED,
        already_complete=already_complete,
        waiting=waiting,
        frames_done=frames,
        frames_failed=failed,
        frames_unlike=unlike,
        objects=objects,
        frames_in_this_run=round(run.frames) if run else 0,
        seconds=seconds,
        frames_per_second=run.frames / seconds if run and seconds else 0.0,
        missing_chunks=missing_chunks,
        stacks=tuple(_result(folder, stack) for stack in job.plan.stacks),
        refused=refused,
    )


def _result(folder: JobFolder, stack: StackPlan) -> str:
    """Where a stack's labels are: its store, or the label image that was added to one."""
    store = store_of(stack.name)
    return folder.results.where(f"{store}/{stack.labels.group}" if folder.is_added else store)
