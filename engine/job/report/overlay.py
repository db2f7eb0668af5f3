"""A picture of one frame under the outlines of its labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from engine.store.files import whole_file

GOLDEN = (5**0.5 - 1) / 2  # turns of the colour wheel; consecutive ids lie far apart on it


def overlay_png(path: Path | str, frame: NDArray[Any], labels: NDArray[Any]) -> None:
    """Write `overlay(frame, labels)` as a PNG."""
    with whole_file(Path(path)) as partial:
        partial.write_bytes(imagecodecs.png_encode(overlay(frame, labels)))


def overlay(frame: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.uint8]:
    """The frame in grey with a one-pixel outline for each object, in a colour of its own.

    `frame` is (Y, X) of any dtype, `labels` (Y, X) of integers. Returns (Y, X, 3) uint8.
    """
    picture = np.repeat(contrast(frame, gamma=0.6)[:, :, None], 3, axis=2)
    edge = outlines(labels)
    picture[edge] = colours(labels[edge])
    return picture


def outlines(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Where an object ends: its own pixels that have another label above, below or beside them.

    Shape (Y, X), as `labels`. Two objects that touch each keep their outline, so that the line
    between them is two pixels wide. The frame's edge ends no object.

        labels  . . . . .      outlines  . . . . .
                . 1 1 1 2                . # # # #
                . 1 1 1 2                . # . # #
                . 1 1 1 .                . # # # .
                . . . . .                . . . . .
    """
    edge = np.zeros(labels.shape, np.bool_)
    down = labels[1:] != labels[:-1]
    across = labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge &= labels != 0
    return edge


def contrast(
    frame: NDArray[Any], low: float = 1, high: float = 99.8, gamma: float = 1.0
) -> NDArray[np.uint8]:
    """The frame as 8-bit grey, black at its percentile `low` and white at `high`.

    A `gamma` below 1 lifts what is dim: the brightness of nuclei of one frame spans decades.
    """
    black, white = (float(v) for v in np.nanpercentile(frame, (low, high)))
    return grey(frame, black, white, gamma)


def grey(frame: NDArray[Any], black: float, white: float, gamma: float = 1.0) -> NDArray[np.uint8]:
    """The frame as 8-bit grey between two of its values; what is no number is black."""
    span = white - black if white > black else 1.0
    level = (frame.astype(np.float32) - np.float32(black)) * np.float32(1 / span)
    level = np.clip(np.nan_to_num(level), 0, 1) ** np.float32(gamma)
    levels: NDArray[np.uint8] = np.rint(255 * level).astype(np.uint8)
    return levels


def colours(ids: NDArray[Any]) -> NDArray[np.uint8]:
    """A bright colour for each id, always the same: shape (n,) -> (n, 3) RGB."""
    hue = 6 * ((np.asarray(ids, np.float64) * GOLDEN) % 1)  # in sixths of the wheel
    ramps = np.stack([np.abs(hue - 3) - 1, 2 - np.abs(hue - 2), 2 - np.abs(hue - 4)], axis=-1)
    light = 0.25 + 0.75 * np.clip(ramps, 0, 1)  # never darker than nuclei on black
    rgb: NDArray[np.uint8] = np.rint(255 * light).astype(np.uint8)
    return rgb
