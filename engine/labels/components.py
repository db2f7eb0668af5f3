"""Instance labels of a binary mask: connected components."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

EIGHT = np.ones((3, 3), dtype=np.uint8)


def components(mask: NDArray[np.bool_], min_area: int = 0) -> NDArray[np.uint32]:
    """Label the 8-connected components of `mask`, bool (Y, X), as uint32.

    Ids are 1, 2, 3, ... in raster order of each object's first pixel; 0 is background.
    Components of fewer than `min_area` px become background, and the others close ranks.
    """
    labels = np.empty(mask.shape, dtype=np.uint32)
    count: Any = ndimage.label(mask, structure=EIGHT, output=labels)
    if not min_area or not count:
        return labels
    areas = np.bincount(labels.reshape(-1), minlength=count + 1)
    keep = areas >= min_area
    keep[0] = False
    new_ids = np.zeros(count + 1, dtype=np.uint32)
    new_ids[keep] = np.arange(1, keep.sum() + 1, dtype=np.uint32)
    return np.take(new_ids, labels)
