"""Instance labels of a binary mask: connected components."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

EIGHT = np.ones((3, 3), dtype=np.uint8)
BAND = 256  # rows handled at once where a temporary would be larger than the labels themselves


def components(mask: NDArray[np.bool_], min_area: int = 0) -> NDArray[np.uint32]:
    """Label the 8-connected components of `mask`, bool (Y, X), as uint32.

    Ids are 1, 2, 3, ... in raster order of each object's first pixel; 0 is background.
    Components of fewer than `min_area` px become background, and the others close ranks.
    """
    labels = np.empty(mask.shape, dtype=np.uint32)
    count: Any = ndimage.label(mask, structure=EIGHT, output=labels)
    if not min_area or not count:
        return labels
    areas = np.zeros(count + 1, dtype=np.int64)
    for band in bands(labels):
        areas += np.bincount(band.reshape(-1), minlength=count + 1)
    keep = areas >= min_area
    keep[0] = False
    new_ids = np.zeros(count + 1, dtype=np.uint32)
    new_ids[keep] = np.arange(1, keep.sum() + 1, dtype=np.uint32)
    for band in bands(labels):
        band[...] = new_ids[band]
    return labels


def bands(image: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Views of BAND rows each, from the top: their sums depend on nothing but the image."""
    return (image[start : start + BAND] for start in range(0, len(image), BAND))
