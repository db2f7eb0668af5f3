"""Predictions beside the truth, drawn while a network is being trained: the same few places in
every picture, so that it can be watched learning.

    image | truth | prediction | foreground probability        one row for each place

Of classes, the last is their colours mixed by their probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.results.pictures.panels import (
    GAP,
    Picture,
    contrast,
    grey_panel,
    side_by_side,
)
from engine.store.files import whole_file
from train.data.frames import LabelledFrame
from train.data.patches import normalised
from train.networks import Network
from train.predict import predict_logits
from train.settings import TrainSettings
from train.tasks import task_of

PLACES = 3
SIDE = 256  # px


@dataclass(frozen=True)
class Place:
    """A window of a frame, with as many object pixels as any other of its size."""

    frame: LabelledFrame
    window: tuple[slice, slice]


def choose_places(frames: Sequence[LabelledFrame]) -> list[Place]:
    """The densest window of up to PLACES frames: the first, the last, and some in between."""
    steps = np.linspace(0, len(frames) - 1, min(PLACES, len(frames))).round().astype(int)
    return [Place(frames[at], densest_window(frames[at])) for at in steps]


def densest_window(
    frame: LabelledFrame, side: int = SIDE, multiple: int = 1
) -> tuple[slice, slice]:
    """The window inside the frame's margin that has most object pixels, as slices of (Y, X).

    At most `side` px wide, and a multiple of `multiple` px where the frame is large enough. Of
    several such windows the one in their middle, so that what fits is seen with its surroundings.
    """
    inside = frame.inside
    objects = frame.labels[inside] > 0
    sizes = [_size(length, side, multiple) for length in objects.shape]
    sums = objects.astype(np.int64)
    for axis, size in enumerate(sizes):
        sums = np.cumsum(sums, axis)
        zero = np.zeros_like(np.take(sums, [0], axis))
        sums = np.concatenate([zero, sums], axis)
        length = sums.shape[axis]
        sums = np.take(sums, range(size, length), axis) - np.take(sums, range(length - size), axis)
    most = np.argwhere(sums == sums.max())
    y, x = most[np.abs(most - most.mean(axis=0)).sum(axis=1).argmin()]
    top, left = inside[0].start + int(y), inside[1].start + int(x)
    return slice(top, top + sizes[0]), slice(left, left + sizes[1])


def _size(length: int, side: int, multiple: int) -> int:
    size = min(length, side)
    return max(size // multiple * multiple, min(size, multiple))


def draw_strip(
    path: Path, network: Network, places: Sequence[Place], settings: TrainSettings
) -> None:
    """Write the picture of what a network finds in each place; whole frames go through it."""
    network.eval()
    rows = []
    for place in places:
        logits = predict_logits(network, normalised(place.frame))
        rows.append(draw_row(place, logits[:, place.window[0], place.window[1]], settings))
    write_png(path, below_each_other(rows))


def draw_row(place: Place, logits: Tensor, settings: TrainSettings) -> Picture:
    """One place, with the logits (K, Y, X) of its window."""
    grey = grey_panel(contrast(place.frame.image[0][place.window], gamma=0.6))
    truth = place.frame.labels[place.window]
    return side_by_side([grey, *task_of(settings).panels(grey, truth, logits)])


def below_each_other(rows: Sequence[Picture]) -> Picture:
    """Pictures of any width in one, with a gap between them."""
    width = max(row.shape[1] for row in rows)
    wide = [np.pad(row, ((0, GAP), (0, width - row.shape[1]), (0, 0))) for row in rows]
    return np.concatenate(wide)[:-GAP]


def write_png(path: Path, picture: NDArray[Any]) -> None:
    """Write a picture, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_bytes(imagecodecs.png_encode(picture))
