"""The colours of pictures: of ids, of classes, of probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.results.result import LabelClass

GOLDEN = (5**0.5 - 1) / 2  # turns of the colour wheel; consecutive ids lie far apart on it
# Black over violet and orange to pale yellow, even steps of lightness: as matplotlib's "inferno".
_HEAT = np.array(
    [(0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51),
     (249, 140, 10), (249, 201, 50), (252, 255, 164)], np.float32,
)  # fmt: skip


def colours(ids: NDArray[Any]) -> NDArray[np.uint8]:
    """A bright colour for each id, always the same: shape (n,) -> (n, 3) RGB."""
    hue = 6 * ((np.asarray(ids, np.float64) * GOLDEN) % 1)  # in sixths of the wheel
    ramps = np.stack([np.abs(hue - 3) - 1, 2 - np.abs(hue - 2), 2 - np.abs(hue - 4)], axis=-1)
    light = 0.25 + 0.75 * np.clip(ramps, 0, 1)  # never darker than nuclei on black
    rgb: NDArray[np.uint8] = np.rint(255 * light).astype(np.uint8)
    return rgb


def label_colours(ids: NDArray[Any], classes: Sequence[LabelClass]) -> NDArray[np.uint8]:
    """Colours of labels, (n,) -> (n, 3): of a class map the classes' own, else by id."""
    if not classes:
        return colours(ids)
    table = np.zeros((max(c.value for c in classes) + 1, 3), np.uint8)
    for one in classes:
        table[one.value] = one.rgb
    picked: NDArray[np.uint8] = table[np.minimum(ids, len(table) - 1)]
    return picked


def heat_colours(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colours of probabilities 0..1, (Y, X) -> (Y, X, 3)."""
    at = np.clip(probability, 0, 1) * (len(_HEAT) - 1)
    points = np.arange(len(_HEAT))
    out = np.stack([np.interp(at, points, _HEAT[:, c]) for c in range(3)], axis=-1)
    rgb: NDArray[np.uint8] = np.rint(out).astype(np.uint8)
    return rgb
