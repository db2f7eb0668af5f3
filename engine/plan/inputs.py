"""Inputs as a plan needs them: what was opened, its name, and notes on what is not used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import UsageError, printable
from engine.geometry.layout import LabelLayout
from engine.labels.postprocessing import Postprocessing
from engine.model.statistics import windowed
from engine.stacks.base import StackInfo
from engine.stacks.inputs import distinct_names

MAX_NOTES = 20  # shown of the notes on inputs


@dataclass(frozen=True)
class Input:
    """A stack that can be segmented, and which of its channels are for what."""

    info: StackInfo
    path: str  # absolute, since workers may run in another folder; links are not followed
    channels: tuple[int, ...]  # of the stack, one per channel of the model
    measured: tuple[int, ...]  # of the stack, ascending: each has columns in the objects table
    channels_read: tuple[int, ...]  # of the stack, ascending: the above, or all where all are kept
    postprocessing: Postprocessing
    layout: LabelLayout
    # Least and greatest pixel value that the network sees; None: all.
    window: tuple[float, float] | None = field(default=None, kw_only=True)
    # Of a DICOM stack's patient, study and series, by keyword; empty unless they are to be kept.
    identifiers: Mapping[str, str] = field(default_factory=dict, kw_only=True)

    @property
    def summed(self) -> tuple[int, ...]:
        """Channels whose intensities are added up: those measured, and the model's first.

        The frames table has the intensities of the latter.
        """
        return tuple(sorted({self.channels[0], *self.measured}))

    def model_input(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The channels that feed the model, of those read, (C, Y, X), limited to the window.

        A view where it takes all of them, and there is no window. FrameError as `windowed` has it.
        """
        return windowed(_picked(pixels, self.channels_read, self.channels), self.window)

    def of_kept_image(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The channels that are read, of a kept image's, (C, Y, X); a view where all are."""
        return _picked(pixels, range(len(pixels)), self.channels_read)

    def summed_channels(self, pixels: NDArray[Any]) -> dict[int, NDArray[Any]]:
        """See `summed`: pixels (Y, X) by number of the channel, of those read, (C, Y, X)."""
        return {c: pixels[self.channels_read.index(c)] for c in self.summed}

    @property
    def frame_bytes(self) -> int:
        """Bytes of the pixels that are decoded of a frame."""
        return self.decoded_bytes(len(self.channels_read))

    def decoded_bytes(self, n_channels: int) -> int:
        """Bytes that would be decoded of a frame, if so many channels were read.

        Channels that are stored together are decoded together.
        """
        info = self.info
        n = info.size("C") if info.unit_channels > 1 else n_channels
        return n * info.size("Y") * info.size("X") * np.dtype(info.dtype).itemsize

    @property
    def pixel_size_um(self) -> tuple[float, float] | None:
        """Of a pixel, along Y and X; None where the stack does not say."""
        sizes = self.info.pixel_size_um
        return (sizes["Y"], sizes["X"]) if {"Y", "X"} <= set(sizes) else None

    @property
    def pixel_area_um2(self) -> float | None:
        """Area of a pixel, None where the stack does not say."""
        return self.pixel_size_um and self.pixel_size_um[0] * self.pixel_size_um[1]


@dataclass(frozen=True)
class Inputs:
    """What came of opening all inputs."""

    opened: tuple[Input, ...]
    refused: tuple[tuple[str, str], ...]  # inputs that cannot be segmented, and why
    notes: tuple[str, ...]  # sentences on what inputs hold and the job does not use


def _picked(pixels: NDArray[Any], held: Sequence[int], wanted: Sequence[int]) -> NDArray[Any]:
    if list(held) == list(wanted):
        return pixels
    picked: NDArray[Any] = pixels[[held.index(c) for c in wanted]]
    return picked


def names_of(infos: Sequence[StackInfo]) -> list[str]:
    """Names of all stacks: their paths', with the image's number where a path gives several."""
    given = Counter(info.path for info in infos)
    by_path = dict(zip(given, distinct_names(list(given)), strict=True))
    names = [
        printable(by_path[info.path] + (f"/{info.series}" if given[info.path] > 1 else ""))
        for info in infos
    ]
    repeated = [name for name, n in Counter(map(str.casefold, names)).items() if n > 1]
    if repeated:
        raise UsageError(f"two results would be called {repeated[0]}; give them jobs of their own")
    return names


def first_notes(notes: Sequence[str]) -> list[str]:
    """The first notes on the inputs, and how many more there are."""
    more = len(notes) - MAX_NOTES
    rest = [f"and {more} more such notes; job.json has them all"] if more > 0 else []
    return [*notes[:MAX_NOTES], *rest]
