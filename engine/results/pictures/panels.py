"""What one frame looks like: grey image, outlines, fills, probabilities; all (Y, X, 3) uint8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from engine.results.result import LabelClass
from engine.store.files import whole_file

Picture = NDArray[np.uint8]

OPACITY = 0.4  # of a fill over the image
GAP = 4  # px between panels
GOLDEN = (5**0.5 - 1) / 2  # turns of the colour wheel; consecutive ids lie far apart on it

# Black over violet and orange to pale yellow, even steps of lightness: as matplotlib's "inferno".
_HEAT = np.array(
    [(0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51),
     (249, 140, 10), (249, 201, 50), (252, 255, 164)], np.float32,
)  # fmt: skip


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
    at = np.clip(probability, 0, 1) * (len(_HEAT) - 1)
    points = np.arange(len(_HEAT))
    out = np.stack([np.interp(at, points, _HEAT[:, c]) for c in range(3)], axis=-1)
    picture: Picture = np.rint(out).astype(np.uint8)
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


def label_colours(ids: NDArray[Any], classes: Sequence[LabelClass]) -> NDArray[np.uint8]:
    """Colours of labels, (n,) -> (n, 3): of a class map the classes' own, else by id."""
    if not classes:
        return colours(ids)
    table = np.zeros((max(c.value for c in classes) + 1, 3), np.uint8)
    for one in classes:
        table[one.value] = one.rgb
    picked: NDArray[np.uint8] = table[np.minimum(ids, len(table) - 1)]
    return picked


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


def colours(ids: NDArray[Any]) -> NDArray[np.uint8]:
    """A bright colour for each id, always the same: shape (n,) -> (n, 3) RGB."""
    hue = 6 * ((np.asarray(ids, np.float64) * GOLDEN) % 1)  # in sixths of the wheel
    ramps = np.stack([np.abs(hue - 3) - 1, 2 - np.abs(hue - 2), 2 - np.abs(hue - 4)], axis=-1)
    light = 0.25 + 0.75 * np.clip(ramps, 0, 1)  # never darker than nuclei on black
    rgb: NDArray[np.uint8] = np.rint(255 * light).astype(np.uint8)
    return rgb
