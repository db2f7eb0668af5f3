"""A task, and a task on its way: what it is, and what every step needs at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import FrameError, JobStopped
from engine.geometry.layout import Block
from engine.model.file import ModelFile
from engine.plan.plan import StackPlan
from engine.stacks.base import Stack
from engine.steps.hangs import Frame, Pulse, Result
from engine.steps.worker import JobContext, check_unchanged, stack_of
from engine.store.folder import JobFolder, key_of
from engine.store.records import Record, TimingRecord

TRIES = 2  # a frame is tried once more before it is set aside


@dataclass(frozen=True)
class Task:
    """One unit of a step. Plain data: travels to any worker."""

    context: JobContext
    stack: StackPlan
    step: str  # its name
    index: int  # of the block, frame or stitch group
    only: tuple[Frame, ...] = ()  # redo these frames of a committed block; empty: do all of it
    skip: tuple[tuple[int, int, str], ...] = ()  # (t, z, reason): not to be touched


@dataclass(frozen=True)
class Outcome:
    """What the coordinator hears of a task; everything else is in its record."""

    stack: str
    step: str
    index: int
    frames: float = 0.0  # in frames' worth: a region is a part of one
    failed: tuple[tuple[int, int, str], ...] = ()  # (t, z, reason)
    objects: int = 0
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    hangs: bool = False  # whether frames were set aside since they, or their input, gave no sign


@dataclass
class Stopwatch:
    """Seconds by stage, added up over frames."""

    seconds: dict[str, float] = field(default_factory=dict)
    on_stage: Callable[[], None] = lambda: None  # called as each stage begins

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what runs inside as part of stage `name`."""
        self.on_stage()
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass
class TaskRun:
    """A task with what it needs at hand."""

    task: Task
    folder: JobFolder
    model: ModelFile
    pulse: Pulse = field(default_factory=Pulse)  # hears of a frame before it is touched
    watch: Stopwatch = field(init=False)
    attempts: int = 1  # most tries that any frame took
    tile: int = 0  # px; the smallest tile that memory allowed, 0 where it is as planned

    def __post_init__(self) -> None:
        self.watch = Stopwatch(on_stage=self.pulse.beat)

    @property
    def plan(self) -> StackPlan:
        """The stack's plan."""
        return self.task.stack

    @property
    def block(self) -> Block:
        """The block of level 0 that the task is about."""
        return self.plan.layout.block(self.task.index)

    @property
    def stack(self) -> Stack:
        """The open stack, see `stack_of`."""
        with self.pulse.opening():
            return stack_of(self.plan)

    def tried(self, t: int, z: int, call: Callable[[], Result]) -> Result:
        """What `call` returns, which touches a frame; it is called again where it fails.

        Raises FrameError where the frame is not to be touched, or where `call` does so again;
        JobStopped where the frame is not to blame.
        """
        for skipped_t, skipped_z, reason in self.task.skip:
            if (t, z) == (skipped_t, skipped_z):
                raise FrameError(reason)
        for attempt in range(1, TRIES + 1):
            self.attempts = max(self.attempts, attempt)  # deaths in earlier processes count
            try:
                with self.at(t, z):
                    return call()
            except FrameError as error:
                if attempt == TRIES:
                    with self.pulse.opening():
                        check_cause(self.plan, error)
                    raise
        raise AssertionError("unreachable")

    @contextmanager
    def at(self, t: int, z: int) -> Iterator[None]:
        """Around all that touches a frame; and, within that, around what touches another one."""
        before = self.pulse.place
        try:
            self.pulse.at((t, z))
            yield
        finally:
            self.pulse.place = before
        self.pulse.beat()

    def check_identity(self) -> None:
        """Right before a commit: JobStopped, or Abandoned, where the task must not commit."""
        self.pulse.commit()
        check_identity(self.folder, self.task.context)

    def commit(self, key: str, record: Record) -> None:
        """Put the record that commits the task, after all that it speaks of. Timings go first."""
        self.put_timings()
        self.folder.put_record(key, record)

    def put_timings(self, *, durable: bool = True) -> None:
        """Put what the task has taken so far, in place of what was put before."""
        timings = TimingRecord(seconds=self.watch.seconds, attempts=self.attempts, tile=self.tile)
        kind = f"timings/{self.plan.name}"
        key = key_of(kind, self.task.step, self.task.index)
        self.folder.put_record(key, timings, durable=durable)

    def outcome(
        self,
        frames: float = 0.0,
        failed: tuple[tuple[int, int, str], ...] = (),
        objects: int = 0,
    ) -> Outcome:
        """What the coordinator hears of this task."""
        task = self.task
        return Outcome(
            self.plan.name, task.step, task.index, frames, failed, objects, self.watch.seconds
        )


def check_identity(folder: JobFolder, context: JobContext) -> None:
    """JobStopped where the folder is another job's now, or is gone: nothing is written there."""
    found = folder.identity_hash()
    if not found:
        raise JobStopped(
            f"{folder.root}: is gone, perhaps with its disk; run the same command again once it is "
            "back"
        )
    if found != context.identity_sha256:
        raise JobStopped(f"{folder.root}: another job has begun there; this one stops")


def check_cause(plan: StackPlan, error: FrameError) -> None:
    """JobStopped where a frame is not to blame: the input is gone or another, or memory is."""
    if isinstance(error.__cause__, MemoryError):
        raise JobStopped(
            f"{error}; give fewer --workers, and run the same command again"
        ) from error
    check_unchanged(plan)


def check_present(plan: StackPlan) -> None:
    """JobStopped where the input is gone: a Zarr that is reads as background."""
    if not Path(plan.path).exists():
        raise JobStopped(
            f"{plan.info.path}: is gone; run the same command again once it can be read"
        )
