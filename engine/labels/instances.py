"""Instance labels of a whole frame: holes, components, watershed, cores, and what is dropped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.labels.components import at_border, bands, first_pixels, label_areas, label_frame
from engine.labels.cores import label_cores
from engine.labels.holes import filled
from engine.labels.postprocessing import Postprocessing
from engine.labels.runs import runs_of_labels
from engine.labels.watershed import split_touching


def label_instances(
    mask: NDArray[np.bool_],
    postprocessing: Postprocessing,
    core: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint32]:
    """Label the objects of a foreground, bool (Y, X), as uint32, by the rules, in this order:

    holes are filled; 8-connected components are labelled and cut apart by the watershed, or those
    of `core`, (Y, X), are grown; and those too small, too large or at the border become background.
    Ids are 1, 2, 3, ... in raster order of each object's first pixel; 0 is background.
    """
    method = postprocessing.instances
    if method == "cores":
        if core is None:
            raise ValueError("instances by cores need a mask of cores")
        labels, count = label_cores(mask, core, postprocessing)
    else:
        labels, count = label_frame(filled(mask, postprocessing))
    if method == "watershed":
        if postprocessing.min_area > 1:
            # No part is larger than the whole: what is too small need not be cut.
            count = renumber(labels, label_areas(labels, count) >= postprocessing.min_area)
        count = split_touching(
            labels, count, postprocessing.min_distance, postprocessing.seed_height
        )
    if count and (postprocessing.drops or method != "components"):
        return _kept(labels, count, postprocessing)
    return labels


def _kept(
    labels: NDArray[np.uint32], count: int, postprocessing: Postprocessing
) -> NDArray[np.uint32]:
    """Labels, (Y, X), without the objects that are to be dropped, numbered again."""
    runs, border = runs_of_labels(labels), at_border(labels, count)
    if runs.is_noise or runs.label is None:
        renumber(labels, postprocessing.keep(label_areas(labels, count), border))
        return labels
    # Whole numbers below 2^53: exact.
    areas = np.bincount(runs.label, weights=runs.length, minlength=count + 1)[1:].astype(np.int64)
    first = np.zeros(count + 1, dtype=np.int64)
    first[runs.label[::-1]] = runs.start[::-1]  # of equal labels the last assignment stays
    new = numbers_of(postprocessing.keep(areas, border), first[1:])
    return runs.painted(new[runs.label])


def renumber(labels: NDArray[np.uint32], kept: NDArray[np.bool_]) -> int:
    """Drop labels that are not `kept`, (count,), in place; how many stay.

    These are numbered from 1 on, in raster order of their first pixels.
    """
    new = numbers_of(kept, first_pixels(labels, len(kept)))
    for band in bands(labels):
        band[...] = new[band]
    return int(kept.sum())


def numbers_of(kept: NDArray[np.bool_], first: NDArray[np.int64]) -> NDArray[np.uint32]:
    """New labels by old ones, (count + 1,): those `kept` in order of first pixels, 0 for others."""
    order = np.flatnonzero(kept)
    order = order[np.argsort(first[order], kind="stable")]
    new = np.zeros(len(kept) + 1, dtype=np.uint32)
    new[order + 1] = np.arange(1, len(order) + 1, dtype=np.uint32)
    return new
