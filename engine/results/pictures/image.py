"""The raw image under a result's labels: kept in its store, where the job read it, or given."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import StackError, UsageError
from engine.plan.channels import channel_number, parse_channels
from engine.results.pictures.sampling import Shape, draw_image
from engine.results.planes import Number
from engine.results.result import ResultStack
from engine.stacks.base import Stack
from engine.stacks.open import open_stack
from engine.stacks.zarr import ngff
from engine.stacks.zarr.metadata import read_node

log = logging.getLogger("stackseg")


@dataclass(frozen=True)
class RawImage:
    """Frames of one channel, by the numbers of their labels."""

    levels: tuple[Stack, ...]  # the full size first
    channel: int
    channel_name: str  # empty where the metadata name none
    first: Number  # (t, z) of its first frame

    def draw(self, t: int, z: int, shape: Shape) -> NDArray[np.float32]:
        """A frame at `shape`; FrameError where it cannot be read."""
        fitting = [
            s for s in self.levels if s.info.size("Y") >= shape[0] and s.info.size("X") >= shape[1]
        ]
        stack = fitting[-1] if fitting else self.levels[0]
        return draw_image(stack, t - self.first[0], z - self.first[1], self.channel, shape)


def open_image(
    result: ResultStack, files: ExitStack, given: Path | None, channel: str | None
) -> RawImage:
    """The image of a result; UsageError or StackError, one sentence, where there is none.

    `given` overrides where pixels are read from, `channel` (a number or a name) which are
    drawn: by default the model's first.
    """
    first = (0, 0)
    if given is not None:
        levels = [files.enter_context(open_stack(str(given), result.axes))]
    elif result.has_image:
        levels, first = _kept(result, files)
    else:
        levels = [files.enter_context(_original(result))]
    _check_fits(levels[0], result, first)
    number = _channel(levels[0], channel, result)
    names = levels[0].info.channel_names
    return RawImage(tuple(levels), number, names[number] if names else "", first)


def _kept(result: ResultStack, files: ExitStack) -> tuple[list[Stack], Number]:
    """The levels of the image in the store itself."""
    image = ngff.image(str(result.store), read_node(result.store))
    axes = image.letters(len(image.names))
    levels = [files.enter_context(open_stack(str(result.store)))]
    levels += [files.enter_context(open_stack(str(path), axes)) for path in image.levels[1:]]
    return levels, image.first_frame()


def _original(result: ResultStack) -> Stack:
    origin = result.origin
    ways = "give --image PATH, or --style fill, which needs no image"
    if origin is None:
        raise UsageError(
            f"{result.store}: keeps no image, and is in no job's folder that records where it "
            f"came from; {ways}"
        )
    path = origin.path
    try:
        stack = open_stack(path, result.axes, origin.series or None)
    except StackError as error:
        gone = f"{path}: is gone" if not Path(path).exists() else str(error)
        raise UsageError(f"{gone}, and {result.store} keeps no image; {ways}") from error
    if stack.info.identity != origin.content:
        log.warning("%s: has changed since it was segmented; its present pixels are drawn", path)
    return stack


def _check_fits(stack: Stack, result: ResultStack, first: Number) -> None:
    info, labels = stack.info, result.labels
    same = (info.size("Y"), info.size("X")) == (labels.size("Y"), labels.size("X"))
    enough = labels.ts.stop <= first[0] + info.size("T") and labels.zs.stop <= first[1] + info.size(
        "Z"
    )
    if not (same and enough):
        raise UsageError(
            f"{info.path}: is {info.axes} of {' x '.join(map(str, info.shape))}, and does not fit "
            f"the labels of {result.name}, which reach to t={labels.ts.stop - 1}, "
            f"z={labels.zs.stop - 1} at {labels.size('Y')} x {labels.size('X')} px"
        )


def _channel(stack: Stack, given: str | None, result: ResultStack) -> int:
    info = stack.info
    if given is None:
        known = result.origin.channel[0] if result.origin else 0
        return known if known < info.size("C") else 0
    try:
        channels = parse_channels(given)
    except ValueError as error:
        raise UsageError(f"--channel: {error} (got {given!r})") from None
    if len(channels) != 1:
        raise UsageError(f"--channel {given}: names {len(channels)} channels; one is drawn")
    return channel_number(info, channels[0])
