"""Holes of a mask: background that objects enclose, of any size or no larger than a pinhole.

Background connects over edges, not over corners: an 8-connected ring encloses what is inside of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components

from engine.labels.components import at_border
from engine.labels.postprocessing import Postprocessing


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
    row = width + side + 1  # no short run of background goes on from one row to the next
    padded = np.zeros((height + 2, row), dtype=bool)
    padded[1:-1, :width] = mask
    flat = padded.reshape(-1)
    pixels = _short_runs(flat, side)
    if not len(pixels):
        return mask
    number = np.full(flat.shape, -1, dtype=np.int32)  # of those pixels, -1 for all others
    number[pixels] = np.arange(len(pixels))
    above, below = number[pixels - row], number[pixels + row]
    leaks = (~flat[pixels - row] & (above < 0)) | (~flat[pixels + row] & (below < 0))
    hole, count = _connected(number[pixels + 1], below)
    y, x = np.divmod(pixels, row)
    fits = (_extent(y, hole, count) <= side) & (_extent(x, hole, count) <= side)
    fits[hole[leaks]] = False
    flat[pixels[fits[hole]]] = True
    return padded[1:-1, :width]


def _short_runs(flat: NDArray[np.bool_], longest: int) -> NDArray[np.intp]:
    """Indices in runs of at most `longest` px of background between pixels of the mask."""
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1  # the mask begins and ends here by turns
    start, stop = edges[1:-1:2], edges[2::2]
    short = stop - start <= longest
    start, length = start[short], (stop - start)[short]
    within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    pixels: NDArray[np.intp] = np.repeat(start, length) + within
    return pixels


def _connected(*neighbours: NDArray[np.int32]) -> tuple[NDArray[np.int32], int]:
    """Number of the component of each of n points, (n,), and how many components there are.

    `neighbours`, (n,), are points that each one is connected with, -1 where there is none.
    """
    size = len(neighbours[0])
    links = np.concatenate([np.stack([np.flatnonzero(n >= 0), n[n >= 0]]) for n in neighbours], 1)
    graph = sparse.coo_matrix((np.ones(links.shape[1], np.int8), tuple(links)), (size, size))
    count, component = connected_components(graph, directed=False)
    return component, int(count)


def _extent(at: NDArray[np.intp], group: NDArray[np.int32], count: int) -> NDArray[np.intp]:
    """How many px each of `count` groups of positions `at` spans, (count,)."""
    low, high = np.full(count, np.iinfo(np.intp).max), np.zeros(count, np.intp)
    np.minimum.at(low, group, at)
    np.maximum.at(high, group, at)
    extent: NDArray[np.intp] = high - low + 1
    return extent
