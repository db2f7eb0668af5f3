"""One run of a job: step by step, what has no record yet; then the tables."""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from engine import __version__
from engine.errors import JobStopped, OutputError
from engine.job import retry
from engine.job.added import label_names
from engine.job.executors import Executor
from engine.job.prepare import Prepared
from engine.job.progress import Progress
from engine.job.report import files as report
from engine.job.signals import INTERRUPTED, graceful_stop
from engine.plan.plan import StackPlan
from engine.steps.hangs import MAX_HUNG_INPUTS, Frame, Hung, within
from engine.steps.todo import todo
from engine.steps.work import Task
from engine.steps.worker import JobContext, check_unchanged
from engine.store.committed import block_record
from engine.store.folder import JobFolder
from engine.store.ome_zarr import LABEL_LIST, label_list, metadata_files, metadata_keys

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


class Run:
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
        # Failed frames of committed blocks that are to be done again, by stack and block.
        self._again = {
            (stack.name, block): frames
            for stack in job.plan.stacks
            for block, frames in retry.failed_frames(folder, job, stack).items()
        }
        self._hung: set[str] = set()  # stacks with frames that this run set aside since they hang

    def carry_out(self, steps: tuple[str, ...], *, complete: bool) -> JobSummary:
        """Do what is left of `steps`; with `complete`, write the tables where nothing is."""
        job, folder = self.job, self.folder
        begin = time.perf_counter()
        before = _before(job, folder, self._again)
        try:
            self._write_metadata()
            showing = self.progress.showing(job.plan.n_frames, before.frames, before.objects)
            with graceful_stop(folder, self.context.stop, job.settings.grace), showing:
                for step in steps:
                    tasks = self._tasks(step)
                    if (first := next(tasks, None)) is None:
                        continue
                    self.progress.begin(step)
                    for outcome in self.executor.run(itertools.chain([first], tasks)):
                        self.told.frames += outcome.frames
                        self.told.failed += len(outcome.failed)
                        if outcome.hangs:
                            self._hung.add(outcome.stack)
                        if step == "segment":
                            self._again.pop((outcome.stack, outcome.index), None)
                        self.progress.advance(outcome)
                    if folder.stopping(self.context.stop):
                        break
                stopped = folder.stopping(self.context.stop) and self._is_left(steps)
                folder.forget_stop(self.context.stop)
            if not stopped:
                self._check_inputs()
            self.told.seconds += time.perf_counter() - begin
            ended = report.write(folder, job, self.told) if complete and not stopped else None
        except OutputError as error:
            raise JobStopped(str(error)) from error
        except MemoryError as error:
            raise JobStopped(
                f"{folder.root}: the memory is used up; run the same command again with fewer "
                "--workers or a smaller --tile to go on"
            ) from error
        return summarise(job, ended, self.told, waiting=not complete and not stopped)

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
                        f"{late}; once it can be read again, the same command goes on"
                    ) from error
                log.warning("%s, to see whether it is still what it was", late)

    def _tasks(self, step: str) -> Iterator[Task]:
        by_stack: dict[str, dict[int, tuple[Frame, ...]]] = {}
        for (name, block), frames in self._again.items() if step == "segment" else ():
            by_stack.setdefault(name, {})[block] = frames
        for stack, is_mine in self._shares():
            again = by_stack.get(stack.name, {})
            for block, frames in again.items():
                yield Task(self.context, stack, step, block, only=frames)
            for index in todo(step, stack, self.folder, is_mine):
                if index not in again:
                    yield Task(self.context, stack, step, index)

    def _shares(self) -> Iterator[tuple[StackPlan, Callable[[int], bool]]]:
        """Each stack, with what tells whether a block of it is this run's."""
        number, count = self.job.settings.shard_of

        def is_mine(first: int, block: int) -> bool:
            return (first + block) % count == number - 1

        first = 0  # blocks are numbered through all stacks
        for stack in self.job.plan.stacks:
            yield stack, partial(is_mine, first)
            first += stack.layout.n_blocks

    def _is_left(self, steps: tuple[str, ...]) -> bool:
        return bool(self._again) or any(
            any(True for _ in todo(step, stack, self.folder, is_mine))
            for step in steps
            for stack, is_mine in self._shares()
        )

    def _write_metadata(self) -> None:
        job = self.job
        # A list of label images that was lost named what relabellings had added as well.
        names = {} if job.stores else label_names(self.folder)
        for stack in job.plan.stacks:
            made_with = {
                "version": __version__,
                "model": job.model.spec.name,
                "model_sha256": job.model.sha256,
                "runtime": job.site.runtime,
                **asdict(stack.postprocessing),
                "channels": list(stack.channels),
            }
            store = self.folder.store(stack.name)
            name = stack.name.rpartition("/")[2]
            files = metadata_files(
                name, stack.info, stack.layout, stack.arrays, job.model.spec, made_with
            )
            for key in metadata_keys(stack.arrays, added=bool(stack.source)):
                if not (store / key).exists():
                    listed = key == LABEL_LIST
                    content = label_list(names[stack.name]) if listed else files[key]
                    self.folder.put(store / key, content)


@dataclass(frozen=True)
class _Before:
    """What earlier runs of a job have committed."""

    frames: float
    objects: int


def _before(job: Prepared, folder: JobFolder, again: Container[tuple[str, int]]) -> _Before:
    frames, objects = 0.0, 0
    for stack in job.plan.stacks:
        layout = stack.layout
        pixels = layout.sizes[2] * layout.sizes[3]
        for block in layout.blocks():
            if (stack.name, block.index) in again:
                continue
            record = block_record(folder, stack, block)
            part = folder.place("work/parts", stack.name, block.index)
            if record is not None or part.exists():
                frames += block.n_frames * block.y.size * block.x.size / pixels
            objects += sum(row.get("objects") or 0 for row in (record or {}).get("frames", ()))
    return _Before(frames, objects)


def summarise(
    job: Prepared,
    ended: dict[str, Any] | None,
    run: report.Run | None = None,
    *,
    already_complete: bool = False,
    waiting: bool = False,
) -> JobSummary:
    """The summary of a job that `ended` tells of (job.json), or of a run that did not end it."""
    # A shard that waits for others speaks of its own frames.
    here = {"frames": round(run.frames), "failed": run.failed} if run and waiting else {}
    counts = ended["counts"] if ended else {"frames": 0, "failed": 0, "objects": 0, **here}
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
        stacks=tuple(_result(job, stack) for stack in job.plan.stacks),
        refused=refused,
    )


def _result(job: Prepared, stack: StackPlan) -> str:
    """Where a stack's labels are: its store, or the label image that was added to one."""
    if job.stores:
        return str(job.stores / f"{stack.name}.zarr" / stack.labels.group)
    return str(job.settings.output / f"{stack.name}.zarr")
