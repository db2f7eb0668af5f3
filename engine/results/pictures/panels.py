"""What one frame looks like: grey image, outlines, fills, probabilities; all (Y, X, 3) uint8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from engine.results.pictures.colours import heat_colours, label_colours
from engine.results.result import LabelClass
from engine.store.files import whole_file

Picture = NDArray[np.uint8]

OPACITY = 0.4  # of a fill over the image
GAP = 4  # px between panels


def overlay_png(path: Path, frame: NDArray[Any], labels: NDArray[Any]) -> None:
    """Write `overlay(frame, labels)` as a PNG."""
    with whole_file(path) as partial:
        partial.write_bytes(imagecodecs.png_encode(overlay(frame, labels)))


def overlay(frame: NDArray[Any], labels: NDArray[Any]) -> Picture:
    """The frame (Y, X) of any dtype in grey, with an outline for each object of `labels` (Y, X)."""
    return outlined(grey_panel(contrast(frame, gamma=0.6)), labels)


def grey_panel(grey: NDArray[np.uint8]) -> Picture:
    """An 8-bit image (Y, X) as a picture."""
    return np.repeat(grey[:, :, None], 3, axis=2)


def outlined(picture: Picture, labels: NDArray[Any], classes: Sequence[LabelClass] = ()) -> Picture:
    """The picture under one-pixel outlines, each in its label's colour."""
    out = picture.copy()
    edge = outlines(labels)
    out[edge] = label_colours(labels[edge], classes)
    return out


def filled(picture: Picture, labels: NDArray[Any], classes: Sequence[LabelClass]) -> Picture:
    """The picture through translucent labels, each with its outline."""
    out = picture.copy()
    inside = labels != 0
    paint = label_colours(labels[inside], classes).astype(np.float32)
    out[inside] = np.rint((1 - OPACITY) * out[inside] + OPACITY * paint)
    return outlined(out, labels, classes)


def heat(probability: NDArray[np.float32], labels: NDArray[Any]) -> Picture:
    """Probabilities 0..1 (Y, X) by colour, under white outlines of the labels."""
    picture = heat_colours(probability)
    picture[outlines(labels)] = 255
    return picture


def class_mixture(
    probability: NDArray[np.float32], classes: Sequence[LabelClass], labels: NDArray[Any]
) -> Picture:
    """Colours of the classes (C, Y, X) mixed by their probabilities; background is black."""
    paint = np.array([c.rgb if c.value else (0, 0, 0) for c in classes], np.float32)
    mixed = np.clip(np.tensordot(probability, paint, axes=(0, 0)), 0, 255)
    picture: Picture = np.rint(mixed).astype(np.uint8)
    picture[outlines(labels)] = 255
    return picture


def side_by_side(panels: Sequence[Picture]) -> Picture:
    """Panels of one height from left to right, with a gap between them."""
    gap = np.full((panels[0].shape[0], GAP, 3), 64, np.uint8)
    parts: list[Picture] = []
    for panel in panels:
        parts += [gap, panel]
    return np.concatenate(parts[1:], axis=1)


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
