"""What a network learns from instance labels, by the way in which its objects are to be told apart.

    labels              cores: foreground     core                 components: foreground
    1 1 1 1 2 2 2 2     1 1 1 1 1 1 1 1       . 1 1 . . 1 1 .      1 1 1 . . 1 1 1

*Cores*: all of every object, and what of it lies deeper than a few pixels below its edge, so that
the cores of touching objects do not touch. *Components*: foreground in which touching objects are
cut apart, and a weight map that makes the network learn the gaps (Ronneberger et al. 2015,
https://arxiv.org/abs/1505.04597, equation 2).
"""

from __future__ import annotations

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
    below = depth_below_edge(labels)
    deepest = np.zeros(int(labels.max()) + 1, dtype=np.float32)
    np.maximum.at(deepest, labels, below)
    core: NDArray[np.bool_] = below > np.minimum(depth, deepest / 2)[labels]
    return core


def depth_below_edge(labels: NDArray[Any]) -> NDArray[np.float32]:
    """How far each pixel's centre lies below the edge of its object, px, (Y, X); 0 outside.

    A pixel at the edge has 0.5. Distances to other objects are those to the pixels that face them,
    and so up to 0.6 px too long at slanting contacts. Beyond the image there is no edge.
    """
    inside = labels > 0
    if inside.all() and (labels == labels.flat[0]).all():
        return np.full(labels.shape, max(labels.shape), dtype=np.float32)
    to_edge = np.full(labels.shape, np.inf)
    if not inside.all():
        to_edge = ndimage.distance_transform_edt(inside)
    facing = inside & ~cut_apart(labels)
    if facing.any():
        np.minimum(to_edge, 1 + ndimage.distance_transform_edt(~facing), out=to_edge)
    below: NDArray[np.float32] = np.where(inside, to_edge - 0.5, 0).astype(np.float32)
    return below


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
