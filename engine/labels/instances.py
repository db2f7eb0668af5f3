"""Instance labels of a whole frame: holes, components, watershed, and what is dropped."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.labels.components import bands, first_pixels, label_areas, label_frame
from engine.labels.postprocessing import Postprocessing
from engine.labels.watershed import split_touching


def label_instances(mask: NDArray[np.bool_], postprocessing: Postprocessing) -> NDArray[np.uint32]:
    """Label the objects of `mask`, bool (Y, X), as uint32, by the rules, in this order:

    holes are filled, 8-connected components are labelled and cut apart by the watershed, and those
    too small, too large or at the border become background. Ids are 1, 2, 3, ... in raster order of
    each object's first pixel; 0 is background.
    """
    if postprocessing.fill_holes:
        mask = fill_holes(mask)
    labels, count = label_frame(mask)
    if postprocessing.instances == "watershed":
        if postprocessing.min_area > 1:
            # No part is larger than the whole: what is too small need not be cut.
            count = renumber(labels, label_areas(labels, count) >= postprocessing.min_area)
        count = split_touching(
            labels, count, postprocessing.min_distance, postprocessing.seed_height
        )
    if count and (postprocessing.drops or postprocessing.instances == "watershed"):
        kept = postprocessing.keep(label_areas(labels, count), at_border(labels, count))
        renumber(labels, kept)
    return labels


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask with the background that it encloses, bool (Y, X); as SciPy's binary_fill_holes.

    Background reaches the border of the frame over edges, not over corners: an 8-connected ring
    encloses what is inside of it.
    """
    outside = np.empty(mask.shape, dtype=np.int32)
    count: Any = ndimage.label(~mask, output=outside)
    is_hole = ~at_border(outside, count)
    is_hole = np.r_[True, is_hole]  # 0 is the mask itself
    filled: NDArray[np.bool_] = is_hole[outside]
    return filled


def at_border(labels: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Which of `count` labels, (Y, X), touch the border of the frame, (count,)."""
    touches = np.zeros(count + 1, dtype=bool)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        touches[side] = True
    return touches[1:]


def renumber(labels: NDArray[np.uint32], kept: NDArray[np.bool_]) -> int:
    """Drop labels that are not `kept`, (count,), in place; how many stay.

    These are numbered from 1 on, in raster order of their first pixels.
    """
    first = first_pixels(labels, len(kept))
    order = np.flatnonzero(kept)
    order = order[np.argsort(first[order], kind="stable")]
    new = np.zeros(len(kept) + 1, dtype=np.uint32)
    new[order + 1] = np.arange(1, len(order) + 1, dtype=np.uint32)
    for band in bands(labels):
        band[...] = new[band]
    return len(order)
