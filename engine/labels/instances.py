"""Instance labels of a whole frame: holes, components, watershed, cores, and what is dropped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.labels.components import areas_and_first_pixels, at_border, label_frame, renumber
from engine.labels.cores import label_cores
from engine.labels.holes import filled
from engine.labels.postprocessing import Postprocessing
from engine.labels.runs import runs_of


def label_instances(
    mask: NDArray[np.bool_],
    postprocessing: Postprocessing,
    core: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint32]:
    """Label the objects of a foreground, bool (Y, X), as uint32, in this order:

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
        from engine.labels.watershed import split_touching  # which takes SciPy: 0.1 s

        if postprocessing.min_area > 1:
            # No part is larger than the whole: what is too small need not be cut.
            runs = runs_of(labels)
            areas, first = areas_and_first_pixels(labels, count, runs)
            count = renumber(labels, areas >= postprocessing.min_area, first, runs)
        count = split_touching(
            labels, count, postprocessing.min_distance, postprocessing.seed_height
        )
    if count and (postprocessing.drops or method != "components"):
        drop(labels, count, postprocessing)
    return labels


def drop(labels: NDArray[np.uint32], count: int, postprocessing: Postprocessing) -> None:
    """Drop what is too small, too large or at the border of `count` labels, (Y, X), in place."""
    runs = runs_of(labels)
    areas, first = areas_and_first_pixels(labels, count, runs)
    renumber(labels, postprocessing.keep(areas, at_border(labels, count)), first, runs)
