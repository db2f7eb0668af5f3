"""What a network learns from instance labels: foreground with touching objects cut apart, and a
weight map that makes it learn the gaps (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597,
equation 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

EIGHT = np.ones((3, 3), dtype=bool)
# Beyond this many sigma the weight is below w0 * exp(-8), three thousandths for w0 = 10.
REACH = 4.0


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
