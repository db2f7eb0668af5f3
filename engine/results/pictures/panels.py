"""What one frame looks like: grey image, outlines, fills, probabilities; all (Y, X, 3) uint8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.job.report.overlay import colours, outlines
from engine.results.result import LabelClass

Picture = NDArray[np.uint8]

OPACITY = 0.4  # of a fill over the image
GAP = 4  # px between panels

# Black over violet and orange to pale yellow, even steps of lightness: as matplotlib's "inferno".
_HEAT = np.array(
    [(0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51),
     (249, 140, 10), (249, 201, 50), (252, 255, 164)], np.float32,
)  # fmt: skip


def grey_panel(grey: NDArray[np.uint8]) -> Picture:
    """An 8-bit image (Y, X) as a picture."""
    return np.repeat(grey[:, :, None], 3, axis=2)


def outlined(picture: Picture, labels: NDArray[Any], classes: Sequence[LabelClass]) -> Picture:
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
    """Probabilities 0..1 (Y, X) by colour, under white outlines of what was made of them."""
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


def beside(panels: Sequence[Picture]) -> Picture:
    """Panels of one height from left to right, with a gap between them."""
    gap = np.full((panels[0].shape[0], GAP, 3), 64, np.uint8)
    parts: list[Picture] = []
    for panel in panels:
        parts += [gap, panel]
    return np.concatenate(parts[1:], axis=1)
