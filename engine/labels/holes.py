"""Holes of a mask: background that objects enclose, of any size or no larger than a pinhole.

Background connects over edges, not over corners: an 8-connected ring encloses what is inside of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.labels.components import at_border
from engine.labels.postprocessing import Postprocessing
from engine.labels.runs import Ints, connected, ranges, runs_of_mask


def filled(mask: NDArray[np.bool_], postprocessing: Postprocessing) -> NDArray[np.bool_]:
    """A mask, (Y, X), without the holes that are to be filled; the mask itself where none are."""
    if postprocessing.fill_holes:
        return fill_holes(mask)
    return fill_pinholes(mask, postprocessing.pinhole) if postprocessing.pinhole else mask


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask with the background that it encloses, bool (Y, X); as SciPy's binary_fill_holes."""
    outside = np.empty(mask.shape, dtype=np.int32)
    count: Any = ndimage.label(~mask, output=outside)
    is_hole = ~at_border(outside, count)
    is_hole = np.r_[True, is_hole]  # 0 is the mask itself
    result: NDArray[np.bool_] = is_hole[outside]
    return result


def fill_pinholes(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """A mask, (Y, X), with the holes that fit into a box of `side` x `side` px.

    A hole is a component of the background that does not touch the border of the mask. So a pixel
    that lies `side` px or more from an edge that cuts a larger mask becomes what it does there:
    what reaches from the pixel to such an edge is longer than the box.
    """
    height, width = mask.shape
    runs = runs_of_mask(mask)
    length = runs.start[1:] - runs.stop[:-1]
    gap = np.flatnonzero((length <= side) & (runs.row[1:] == runs.row[:-1]))
    if not len(gap):
        return mask
    row, stop = runs.row[gap], runs.stop[gap]
    pixels = ranges(stop, length[gap])  # of background between pixels of the mask, in short runs
    number = np.searchsorted(pixels, pixels + width)  # of the pixel below each, if it is of these
    below = np.where(pixels[np.minimum(number, len(pixels) - 1)] == pixels + width, number, -1)
    has_above = np.zeros(len(pixels), dtype=bool)
    has_above[below[below >= 0]] = True
    flat = mask.reshape(-1)
    y = np.repeat(row, length[gap])
    leaks = (y == 0) | (y == height - 1)
    inner = np.flatnonzero(~leaks)
    leaks[inner] = (~flat[pixels[inner] - width] & ~has_above[inner]) | (
        ~flat[pixels[inner] + width] & (below[inner] < 0)
    )
    goes_on = np.diff(pixels, append=-1) == 1  # none follows at the end of its run: the mask does
    hole, count = _components(goes_on, below)
    x = pixels - y * width
    fits = (_extent(y, hole, count) <= side) & (_extent(x, hole, count) <= side)
    fits[hole[leaks]] = False
    out = mask.copy()
    out.reshape(-1)[pixels[fits[hole]]] = True
    return out


def _components(goes_on: NDArray[np.bool_], below: NDArray[np.int64]) -> tuple[Ints, int]:
    """Number of the component of each of n pixels, (n,), and how many components there are.

    A pixel is connected with the next one where it `goes_on`, and with `below` but where it is -1.
    """
    links = np.stack([np.where(goes_on, np.arange(1, len(below) + 1), -1), below], axis=1)
    is_link = links >= 0
    return connected(np.r_[0, np.cumsum(is_link.sum(axis=1))], links[is_link])


def _extent(at: Ints, group: Ints, count: int) -> Ints:
    """How many px each of `count` groups of positions `at` spans, (count,)."""
    low, high = np.full(count, np.iinfo(np.int64).max), np.zeros(count, np.int64)
    np.minimum.at(low, group, at)
    np.maximum.at(high, group, at)
    extent: Ints = high - low + 1
    return extent
