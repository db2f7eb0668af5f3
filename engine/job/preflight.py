"""What is tried on real pixels before a job begins: device, halo, and the labels of a precision."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from engine.errors import FrameError
from engine.geometry.tiling import FrameTiling
from engine.inference.agreement import Look
from engine.inference.device_check import halo_error, middle, real_tile
from engine.model.file import ModelFile
from engine.model.statistics import frame_statistics, is_blank, windowed
from engine.plan.plan import Plan, StackPlan
from engine.runtimes.base import Floats, Pixels, Session
from engine.stacks.base import Stack
from engine.steps.hangs import Frame, Hung, Timeout
from engine.steps.missing import check_frame
from engine.steps.worker import open_within

TRIES = 5  # frames looked at until one has something in it
LOOKS = 5  # frames of which labels are compared
TILE = 512  # px; of the tile that the device is tried on
SIDE = 2048  # px; of a larger frame the middle is taken
log = logging.getLogger("stackseg")


def first_tile(
    model: ModelFile, plan: Plan, timeout: Timeout = "auto"
) -> tuple[str, Pixels, Floats] | None:
    """Pixel type, a tile (C, H, W) and its statistics (C, 2); None where no frame can be read.

    Where the frames looked at are blank, or may not be read, the pixels are synthetic.
    """
    for stack in plan.stacks:
        if found := _first_frame(model, stack, timeout):
            # No larger than what memory was planned for.
            limit = min(TILE, *stack.tiling.tile_shape)
            return stack.info.dtype, real_tile(found[0], model.spec.stride, limit), found[1]
    return None


def inexact(model: ModelFile, tiling: FrameTiling) -> bool:
    """Whether a tiling may change labels: its halo is less than what the network can see."""
    cut = tiling.n_tiles > 1
    return cut and (model.halo is None or tiling.halo < model.halo)


def measured_halo_error(
    model: ModelFile,
    plan: Plan,
    session_for: Callable[[str], Session],
    timeout: Timeout = "auto",
) -> Iterator[str]:
    """A sentence for each stack whose halo is too small: what that changes in a real frame.

    `session_for` gives the session for a pixel type.
    """
    for stack in plan.stacks:
        if not inexact(model, stack.tiling):
            continue
        if found := _first_frame(model, stack, timeout):
            error = halo_error(
                *found, stack.tiling, session_for(stack.info.dtype),
                n_classes=model.spec.n_class_outputs,
                threshold=stack.postprocessing.threshold,
                limit=min(SIDE, max(stack.tiling.tile_shape)),
            )  # fmt: skip
            yield (
                f"{stack.name}: with a halo of {stack.tiling.halo} px probabilities of one frame "
                f"differ by up to {error.max_probability:.2g} from those of the frame in one "
                f"piece, and {error.changed_fraction:.2%} of its pixels change class"
            )


def _first_frame(
    model: ModelFile, plan: StackPlan, timeout: Timeout
) -> tuple[Pixels, Floats] | None:
    """A frame, or the middle of a large one, that can be read and has something in it."""
    with _watched(plan) as is_safe:
        if is_safe:
            try:
                return _read(model, plan, timeout)
            except Hung as error:
                log.warning("%s: did not end within %g s when read", plan.name, error.seconds)
    return _synthetic(plan)


@contextmanager
def _watched(plan: StackPlan) -> Iterator[bool]:
    """Whether a stack's first frames may be read here: not where that has ended a process.

    Nothing is written to the job's folder yet, so that a note of it lies with temporary files.
    """
    key = f"{plan.path} {plan.info.identity}".encode("utf-8", "backslashreplace")
    digest = hashlib.sha256(key).hexdigest()[:32]
    note = Path(tempfile.gettempdir()) / f"stackseg-reading-{digest}"
    me = f"{os.getpid()} {psutil.Process().create_time()}"
    with suppress(OSError):
        if (writer := note.read_text()) and writer != me and not _lives(writer):
            yield False
            return
    with suppress(OSError):
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(note, flags, 0o600), "w") as file:
            file.write(me)
    try:
        yield True
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)


def _lives(writer: str) -> bool:
    """Whether the process that wrote a note is there still, and not another of its number."""
    number, _, begun = writer.partition(" ")
    try:
        return str(psutil.Process(int(number)).create_time()) == begun
    except (psutil.Error, ValueError):
        return False


def _synthetic(plan: StackPlan) -> tuple[Pixels, Floats]:
    """Pixels in place of frames that may not be read: smooth waves over the whole of their type."""
    height, width = (min(size, TILE) for size in plan.layout.sizes[2:])
    y, x = np.mgrid[:height, :width]
    waves = 0.5 + np.sin(y / 7) * np.cos(x / 9) / 2
    dtype = np.dtype(plan.info.dtype)
    highest = 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
    frame = np.stack([(waves * highest).astype(dtype)] * len(plan.channels))
    return frame, np.tile(np.array([0, highest], dtype=np.float32), (len(frame), 1))


def _read(model: ModelFile, plan: StackPlan, timeout: Timeout) -> tuple[Pixels, Floats] | None:
    only_blank = False
    for frame, statistics in frames_of(model, plan, first_places(plan), timeout):
        if not is_blank(statistics):
            return frame, statistics
        only_blank = True
    return _synthetic(plan) if only_blank else None  # those with something in them come later


def first_places(plan: StackPlan, count: int = TRIES) -> Iterator[Frame]:
    """The (t, z) of a stack's first frames."""
    frames = (place for block in plan.layout.blocks() for place in block.frames)
    return itertools.islice(frames, count)


def frames_of(
    model: ModelFile, plan: StackPlan, places: Iterable[Frame], timeout: Timeout
) -> Iterator[tuple[Pixels, Floats]]:
    """Frames (C, Y, X) and their statistics (C, 2); those that cannot be read are passed over.

    Of a large frame it is the middle. They may be blank. Hung is raised where a read does not end.
    """
    windows = [middle(size, model.spec.stride, SIDE) for size in plan.layout.sizes[2:]]

    def read(stack: Stack, frame: Frame) -> Pixels:
        check_frame(stack, plan, *frame)
        return windowed(stack.read_window(*frame, plan.channels, *windows), plan.window)

    with open_within(timeout, plan) as limited:
        for place in places:
            try:
                frame = limited.within(partial(read, frame=place))
                statistics = frame_statistics(frame, model.spec.normalisation)
            except FrameError:
                continue  # it will say so itself, in its place
            yield frame, statistics


def look_at(plan: StackPlan, frame: Pixels, statistics: Floats) -> Look:
    """A frame, or the middle of a large one, in tiles like those of its stack."""
    height, width = frame.shape[1:]
    tiling = replace(plan.tiling, height=height, width=width)
    return Look(frame, statistics, tiling, plan.postprocessing)


def first_looks(model: ModelFile, plan: Plan, timeout: Timeout = "auto") -> list[Look]:
    """Up to LOOKS of a job's first frames that can be read and have something in them."""
    found: list[Look] = []
    for stack in plan.stacks[: LOOKS + TRIES]:
        with _watched(stack) as is_safe, suppress(Hung):
            places = first_places(stack, LOOKS + TRIES) if is_safe else ()
            for frame, statistics in frames_of(model, stack, places, timeout):
                if not is_blank(statistics):
                    found.append(look_at(stack, frame, statistics))
                if len(found) == LOOKS:
                    return found
    return found
