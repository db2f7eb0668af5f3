"""Halving along Y and X: labels by the mode of two by two pixels, images by their mean.

    labels  1 1 2     mode  1 2      a label stays a label, and a thin object is not lost by
            1 0 2           0 0      where it happens to lie; of equal counts the first in
            0 0 0                    raster order wins

Rows and columns of odd number are completed by their last ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.compiled import compiled
from engine.geometry.arrays import IMAGE, ResultArray


def halved(array: ResultArray, pixels: NDArray[Any]) -> NDArray[Any]:
    """Pixels of an array, (..., Y, X), at half the size: what its next level has."""
    return halve_image(pixels) if array.kind == IMAGE else halve_labels(pixels)


def halve_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels (..., Y, X) at half the size, rounded up: the mode of each two by two."""
    height, width = labels.shape[-2:]
    half = np.empty((*labels.shape[:-2], (height + 1) // 2, (width + 1) // 2), labels.dtype)
    if half.size:
        _modes(labels.reshape(-1, height, width), half.reshape(-1, *half.shape[-2:]))
    return half


@compiled
def _modes(labels: NDArray[Any], half: NDArray[Any]) -> None:
    """`halve_labels` of (n, Y, X), into another array."""
    n, height, width = labels.shape
    for i in range(n):
        for y in range(half.shape[1]):
            for x in range(half.shape[2]):
                below, right = min(2 * y + 1, height - 1), min(2 * x + 1, width - 1)
                a, b = labels[i, 2 * y, 2 * x], labels[i, 2 * y, right]
                c, d = labels[i, below, 2 * x], labels[i, below, right]
                if a in (b, c, d) or not (b in (c, d) or c == d):
                    half[i, y, x] = a
                else:
                    half[i, y, x] = b if b in (c, d) else c


def halve_image(image: NDArray[Any]) -> NDArray[Any]:
    """Pixels (..., Y, X) at half the size, rounded up: the mean, of integers rounded half up."""
    a, b, c, d = _quarters(image)
    found: NDArray[Any]
    if image.dtype.kind == "f":
        quarter = image.dtype.type(0.25)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite stays so
            found = a * quarter + b * quarter + c * quarter + d * quarter
    elif image.dtype.itemsize > 2:  # the sum of four may not fit into any type
        fours, rest = a >> 2, a & 3
        for other in (b, c, d):
            fours += other >> 2
            rest += other & 3
        found = fours + ((rest + 2) >> 2)
    else:
        found = a.astype(np.int32)
        for other in (b, c, d):
            found += other
        found = ((found + 2) >> 2).astype(image.dtype)
    return found


def _quarters(array: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Upper left, upper right, lower left and lower right of each two by two."""
    odd = [size % 2 for size in array.shape[-2:]]
    if any(odd):
        array = np.pad(array, [(0, 0)] * (array.ndim - 2) + [(0, o) for o in odd], mode="edge")
    upper, lower = array[..., ::2, :], array[..., 1::2, :]
    return upper[..., ::2], upper[..., 1::2], lower[..., ::2], lower[..., 1::2]
