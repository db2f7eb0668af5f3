"""What a network learns from instance labels, by the way in which its objects are to be told apart.

    labels              cores: foreground     core                 components: foreground
    1 1 1 1 2 2 2 2     1 1 1 1 1 1 1 1       . 1 1 . . 1 1 .      1 1 1 . . 1 1 1

*Cores*: all of every object, and what of it lies deeper than a few pixels below its edge, so that
the cores of touching objects do not touch. *Components*: foreground in which touching objects are
cut apart, and a weight map that makes the network learn the gaps (Ronneberger et al. 2015,
https://arxiv.org/abs/1505.04597, equation 2).
"""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

EIGHT = np.ones((3, 3), dtype=bool)
# Beyond this many sigma the weight is below w0 * exp(-8), three thousandths for w0 = 10.
REACH = 4.0


def cores(labels: NDArray[Any], depth: float) -> NDArray[np.bool_]:
    """Pixels more than `depth` px below the edge of their object, bool (Y, X).

    Of an object that is too small for that, those deeper than half of its largest depth: every
    object has a core. `labels` (Y, X) with 0 as background.
    """
    below = depth_below_edge(labels, 2 * depth)
    deepest = np.zeros(int(labels.max()) + 1, dtype=np.float32)
    np.maximum.at(deepest, labels, below)
    core: NDArray[np.bool_] = below > np.minimum(depth, deepest / 2)[labels]
    return core


def depth_below_edge(labels: NDArray[Any], limit: float) -> NDArray[np.float32]:
    """How far each pixel's centre lies below the edge of its object, px, (Y, X); 0 outside.

    The Euclidean distance to the nearest pixel that is not the object's, less the half pixel up to
    the edge: 0.5 at the edge itself. What lies deeper than `limit` has a larger value than that,
    but not its own: few offsets are compared then. Beyond the image there is no edge.
    """
    furthest = limit + 0.5  # between centres
    reach = math.floor(furthest)
    height, width = labels.shape
    padded = np.pad(labels, reach, mode="edge")
    below = np.where(labels > 0, np.float32(limit + 1), np.float32(0))
    for square, offsets in _rings(furthest):  # from the furthest: what is nearer overwrites it
        near = np.zeros(labels.shape, dtype=bool)
        for dy, dx in offsets:
            there = padded[reach + dy : reach + dy + height, reach + dx : reach + dx + width]
            near |= there != labels
        np.copyto(below, np.float32(math.sqrt(square) - 0.5), where=near & (labels > 0))
    return below


@cache
def _rings(furthest: float) -> tuple[tuple[int, tuple[tuple[int, int], ...]], ...]:
    """Offsets (dy, dx) of at most `furthest` px by their squared length, the longest first."""
    span = range(-math.floor(furthest), math.floor(furthest) + 1)
    rings: dict[int, list[tuple[int, int]]] = {}
    for dy, dx in itertools.product(span, span):
        if 0 < dy * dy + dx * dx <= furthest * furthest:
            rings.setdefault(dy * dy + dx * dx, []).append((dy, dx))
    return tuple((square, tuple(rings[square])) for square in sorted(rings, reverse=True))


def cut_apart(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Foreground whose 8-connected components are the objects.

    A pixel is background where it touches, by an edge or a corner, another object: a gap of two
    pixels runs between neighbours. `labels` (Y, X) with 0 as background; returns bool (Y, X).
    """
    apart: NDArray[np.bool_] = labels > 0
    # A neighbour of another id shows as a larger maximum, or as a smaller minimum once background
    # has been lifted out of the way.
    lifted = np.where(labels > 0, labels, np.iinfo(labels.dtype).max)
    apart &= ndimage.maximum_filter(labels, footprint=EIGHT, mode="nearest") == labels
    apart &= ndimage.minimum_filter(lifted, footprint=EIGHT, mode="nearest") == lifted
    return apart


def border_weights(
    foreground: NDArray[np.bool_], w0: float = 10.0, sigma: float = 5.0
) -> NDArray[np.float32]:
    """Weight of each pixel in the loss: 1 + w0 * exp(-(d1 + d2)^2 / (2 sigma^2)).

    d1 and d2 are the distances in px to the nearest and second nearest object, an object being
    an 8-connected component of `foreground` (Y, X). w_c of the paper is 1 here: the soft Dice
    loss balances the classes. Returns float32 (Y, X) in 1 .. 1 + w0.

    Each object's distances are computed in its bounding box grown by REACH sigma only.
    """
    objects, count = ndimage.label(foreground, structure=EIGHT)
    nearest = np.full(foreground.shape, np.inf, dtype=np.float32)
    second = nearest.copy()
    if count > 1 and w0 > 0:
        reach = int(np.ceil(REACH * sigma))
        for label, box in enumerate(ndimage.find_objects(objects), start=1):
            window = _grown(box, reach, foreground.shape)
            outside = objects[window] != label
            distance = ndimage.distance_transform_edt(outside).astype(np.float32)
            d1, d2 = nearest[window], second[window]
            np.minimum(d2, np.maximum(d1, distance), out=d2)
            np.minimum(d1, distance, out=d1)
    gap = w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    weights: NDArray[np.float32] = (1 + gap).astype(np.float32)
    return weights


def _grown(box: tuple[slice, ...], margin: int, shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(
        slice(max(side.start - margin, 0), min(side.stop + margin, size))
        for side, size in zip(box, shape, strict=True)
    )
