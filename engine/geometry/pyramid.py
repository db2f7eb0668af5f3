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


def halve_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels (..., Y, X) at half the size, rounded up: the mode of each two by two."""
    upper, lower = _rows(labels)
    found: NDArray[Any] = upper[..., ::2].copy()
    # Most are the same all four: only where they are not, the other three matter.
    below = upper != lower
    differ = below[..., ::2] | below[..., 1::2] | (upper[..., ::2] != upper[..., 1::2])
    at = np.flatnonzero(differ)
    places = np.unravel_index(at, found.shape)
    a, b, c, d = (row[(*places[:-1], 2 * places[-1] + k)] for row in (upper, lower) for k in (0, 1))
    others = np.where((b == c) | (b == d), b, np.where(c == d, c, a))
    found.reshape(-1)[at] = np.where((a == b) | (a == c) | (a == d), a, others)
    return found


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
    upper, lower = _rows(array)
    return upper[..., ::2], upper[..., 1::2], lower[..., ::2], lower[..., 1::2]


def _rows(array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Upper and lower rows of each two by two, completed."""
    odd = [size % 2 for size in array.shape[-2:]]
    if any(odd):
        array = np.pad(array, [(0, 0)] * (array.ndim - 2) + [(0, o) for o in odd], mode="edge")
    return array[..., ::2, :], array[..., 1::2, :]
