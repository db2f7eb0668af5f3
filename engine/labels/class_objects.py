"""Objects of a class map: the connected components of each chosen class, in one image of labels.

class map    objects of 1 and 2     Pixels of two classes never are one object, even where they
1 1 2 2      1 1 2 2                touch; a pixel of a class that was not chosen is background.
1 3 3 2      1 . . 2                Ids count up in raster order of the objects' first pixels,
3 1 1 .      . 3 3 .                whichever class they are of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.labels.blocks import BlockLabels
from engine.labels.components import areas_and_first_pixels, label_part, renumber
from engine.labels.instances import drop
from engine.labels.postprocessing import Postprocessing
from engine.labels.runs import runs_of


def label_class_map(
    classes: NDArray[np.uint8], chosen: Sequence[int], postprocessing: Postprocessing
) -> NDArray[np.uint32]:
    """Label the objects of a whole frame's class map, (Y, X), as uint32.

    8-connected components of each of the `chosen` classes; those too small, too large or at the
    border are dropped. Ids are 1, 2, 3, ... in raster order of first pixels; 0 is background.
    """
    labels = np.empty(classes.shape, dtype=np.uint32)
    count = label_classes(classes[None], chosen, labels[None], connect_z=False)
    if count and postprocessing.drops:
        drop(labels, count, postprocessing)
    return labels


def label_class_block(
    classes: NDArray[np.uint8],
    chosen: Sequence[int],
    out: NDArray[np.uint32],
    *,
    connect_z: bool,
) -> BlockLabels:
    """Label the objects of a block's class map, (Z, Y, X), into `out`; nothing is dropped yet."""
    count = label_classes(classes, chosen, out, connect_z=connect_z)
    return BlockLabels.of_components(out, count, connect_z=connect_z)


def label_classes(
    classes: NDArray[np.uint8],
    chosen: Sequence[int],
    out: NDArray[np.uint32],
    *,
    connect_z: bool,
) -> int:
    """Label the components of each chosen class, of (Z, Y, X), into `out`; their number.

    As `label_part` connects them; ids count from 1 in raster order, over all classes.
    """
    out[...] = 0
    count = 0
    for number in chosen:
        count += _add_class(classes == number, out, count, connect_z=connect_z)
    if len(chosen) > 1:  # classes came one after the other
        runs = runs_of(out)
        first = areas_and_first_pixels(out, count, runs)[1]
        renumber(out, np.ones(count, dtype=bool), first, runs)
    return count


def _add_class(
    of_class: NDArray[np.bool_], out: NDArray[np.uint32], count: int, *, connect_z: bool
) -> int:
    """Label the components of one class into its pixels of `out`, from `count` + 1; how many."""
    if not of_class.any():
        return 0
    found = np.empty(of_class.shape, dtype=np.uint32)
    n_found = label_part(of_class, found, connect_z=connect_z)
    for plane, labels, inside in zip(out, found, of_class, strict=True):
        np.add(labels, np.uint32(count), out=plane, where=inside)
    return n_found
