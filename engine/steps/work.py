"""One task on its way: what it is, what it needs at hand, and how it sees a frame."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError, JobStopped, OutOfMemory
from engine.geometry.layout import Block
from engine.geometry.tiling import FrameTiling
from engine.model.file import ModelFile
from engine.model.statistics import frame_statistics, is_blank
from engine.plan.plan import StackPlan
from engine.stacks.base import Stack
from engine.steps.frame import Stopwatch, background, probabilities
from engine.steps.hangs import Frame, Place, Pulse, Result
from engine.steps.missing import check_frame
from engine.steps.stored import StoredBlock
from engine.steps.worker import (
    JobContext,
    check_unchanged,
    halve_tile,
    runtime_for,
    stack_of,
    tiling_of,
)
from engine.store.folder import JobFolder

ATTEMPTS = 2  # a frame is tried once more before it is set aside


@dataclass(frozen=True)
class Task:
    """One thing to be done. Plain data: travels to any worker."""

    context: JobContext
    stack: StackPlan
    step: str
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
class Seen:
    """A frame, or a region of it, behind the network."""

    pixels: NDArray[Any]  # raw, (C, Y, X): every channel of the stack
    probability: NDArray[np.float32]  # (K, Y, X)
    sha256: str  # of all pixels read; of a whole frame's, where that was read
    missing_chunks: int  # that the input lacks, and that were read as its fill value
    blank: bool  # whether every channel that the network takes is constant over the whole frame

    @property
    def told(self) -> dict[str, Any]:
        """What a frame's row in a record says of its pixels."""
        return {
            "sha256": self.sha256, "missing_chunks": self.missing_chunks, "blank": self.blank,
        }  # fmt: skip


@dataclass
class Work:
    """A task with what it needs at hand."""

    task: Task
    folder: JobFolder
    model: ModelFile
    pulse: Pulse = field(default_factory=Pulse)  # hears of a frame before it is touched
    watch: Stopwatch = field(init=False)
    attempts: int = 1  # most tries that any frame took
    tile: int = 0  # px; the smallest tile that memory allowed, 0 where it is as planned
    _stored: tuple[int, StoredBlock] | None = None  # the block that was read last, by its number

    def __post_init__(self) -> None:
        self.watch = Stopwatch(moved=self.pulse.beat)

    @property
    def plan(self) -> StackPlan:
        """The stack's plan."""
        return self.task.stack

    @property
    def stack(self) -> Stack:
        """The open stack, see `stack_of`."""
        with self.pulse.opening():
            return stack_of(self.plan)

    def see(
        self, t: int, z: int, block: Block, statistics: NDArray[np.float32] | None = None
    ) -> Seen:
        """A block's part of a frame, read and sent through the network.

        `statistics` are the frame's where the block holds less than all of it. Raises FrameError
        where the frame cannot be read or computed, at the second try too.
        """
        if self.plan.source and (reason := self._stored_block(block).failure(t, z)):
            raise FrameError(reason)

        def once() -> Seen:
            if self.plan.source:
                return self._see_stored(t, z, block)
            seen = self._see(t, z, block, statistics)
            if seen.missing_chunks:  # or is all of it gone, which reads the same?
                with self.pulse.opening():
                    check_there(self.plan)
            return seen

        return self.tried(t, z, once)

    def tried(self, t: int, z: int, call: Callable[[], Result]) -> Result:
        """What `call` returns, which touches a frame; it is called again where it fails.

        Raises FrameError where the frame is not to be touched, or where `call` does so again;
        JobStopped where the frame is not to blame.
        """
        for skipped_t, skipped_z, reason in self.task.skip:
            if (t, z) == (skipped_t, skipped_z):
                raise FrameError(reason)
        for attempt in range(1, ATTEMPTS + 1):
            self.attempts = max(self.attempts, attempt)  # deaths in earlier processes count
            try:
                with self._at(t, z):
                    return call()
            except FrameError as error:
                if attempt == ATTEMPTS:
                    with self.pulse.opening():
                        check_cause(self.plan, error)
                    raise
        raise AssertionError("unreachable")

    @contextmanager
    def _at(self, t: int, z: int) -> Iterator[None]:
        """Around all that touches a frame."""
        try:
            self.pulse.at((t, z))
            yield
        finally:
            self.pulse.place = Place()
        self.pulse.beat()

    def _see_stored(self, t: int, z: int, block: Block) -> Seen:
        """What an earlier job kept of the frame; its pixels from the input if they were not."""
        stored = self._stored_block(block)
        with self.watch.stage("read"):
            row, pixels = stored.row(t, z), stored.pixels(t, z)
            if pixels is None:
                window = (block.y.as_slice(), block.x.as_slice())
                pixels = self.stack.read_window(t, z, self.plan.all_channels, *window)
        told = (row["sha256"], row["missing_chunks"], bool(row.get("blank")))
        return Seen(pixels, stored.probability(t, z), *told)

    def _stored_block(self, block: Block) -> StoredBlock:
        if self._stored is None or self._stored[0] != block.index:
            self._stored = None  # let go of before the next is read
            with self.watch.stage("read"):
                self._stored = (block.index, StoredBlock(self.plan, block))
        return self._stored[1]

    def _see(self, t: int, z: int, block: Block, statistics: NDArray[np.float32] | None) -> Seen:
        context, plan = self.task.context, self.plan
        tiling: FrameTiling | None = tiling_of(context, plan)
        while tiling is not None:
            try:
                return self._see_tiled(t, z, block, statistics, tiling)
            except (OutOfMemory, MemoryError) as error:
                reason = error
                tiling = halve_tile(context, plan, tiling)
                self.tile = max(tiling.tile_shape) if tiling else 0
        raise JobStopped(
            f"{plan.name} t={t} z={z}: out of memory ({reason}); give fewer --workers or a "
            "smaller --tile, and run the same command again to go on"
        ) from reason

    def _see_tiled(
        self, t: int, z: int, block: Block, statistics: NDArray[np.float32] | None,
        tiling: FrameTiling,
    ) -> Seen:  # fmt: skip
        plan = self.plan
        runtime = runtime_for(self.task.context, plan.info.dtype)
        region = tiling.region(block.y, block.x)
        rows, columns = region.read_y.as_slice(), region.read_x.as_slice()
        with self.watch.stage("read"):
            stack = self.stack
            if statistics is None:
                pixels = stack.read(t, z, plan.all_channels)
            else:
                pixels = stack.read_window(t, z, plan.all_channels, rows, columns)
            missing = stack.missing_chunks(t, z, plan.all_channels, rows, columns)
            if missing and statistics is None:  # cut frames were looked at when surveyed
                check_frame(stack, plan, t, z)
        expected = (len(plan.all_channels), region.read_y.size, region.read_x.size)
        if pixels.shape != expected:
            raise FrameError(f"has shape {pixels.shape}, and the stack's frames {expected}")
        digest = hashlib.sha256(pixels.data).hexdigest()
        seen = plan.seen_by_model(pixels)
        if statistics is None:
            with self.watch.stage("statistics"):
                statistics = frame_statistics(seen, self.model.spec.normalisation)
        blank = is_blank(statistics)
        if blank:  # nothing is there, whatever the network would make of it
            probability = background(self.model.spec.n_outputs, (block.y.size, block.x.size))
        else:
            probability = probabilities(seen, statistics, region, runtime, self.watch)
        inside = (block.y.as_slice(region.read_y.start), block.x.as_slice(region.read_x.start))
        return Seen(pixels[:, *inside], probability, digest, missing, blank)

    def check_identity(self) -> None:
        """See `check_identity`: called right before a task commits. Abandoned where it must not."""
        self.pulse.commit()
        check_identity(self.folder, self.task.context)

    def put_timings(self) -> None:
        """Keep how long the task took and what it took; tells nothing about the result."""
        record = {"seconds": self.watch.seconds, "attempts": self.attempts, "tile": self.tile}
        kind = f"timings/{self.plan.name}"
        self.folder.put_json(self.folder.place(kind, self.task.step, self.task.index), record)


def check_identity(folder: JobFolder, context: JobContext) -> None:
    """JobStopped where the folder is another job's now, or is gone: nothing is written there."""
    found = folder.identity_hash()
    if not found:
        raise JobStopped(
            f"{folder.root}: is gone, perhaps with its disk; once it is back, the same command "
            "goes on"
        )
    if found != context.identity_sha256:
        raise JobStopped(f"{folder.root}: another job has begun there; this one stops")


def check_cause(plan: StackPlan, error: FrameError) -> None:
    """JobStopped where a frame is not to blame: the input is gone or another, or memory is."""
    if isinstance(error.__cause__, MemoryError):
        raise JobStopped(
            f"{error}; give fewer --workers, and run the same command again to go on"
        ) from error
    check_unchanged(plan)


def check_there(plan: StackPlan) -> None:
    """JobStopped where the input is gone: a Zarr that is reads as background."""
    if not Path(plan.path).exists():
        raise JobStopped(
            f"{plan.info.path}: is gone; once it can be read again, the same command goes on"
        )
