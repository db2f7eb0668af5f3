"""Holes of a mask: background that objects enclose, of any size or no larger than a pinhole.

Background connects over edges, not over corners: an 8-connected ring encloses what is inside of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.compiled import compiled
from engine.labels.components import at_border, label_frame
from engine.labels.postprocessing import Postprocessing


def filled(mask: NDArray[np.bool_], postprocessing: Postprocessing) -> NDArray[np.bool_]:
    """A mask, (Y, X), without the holes that are to be filled; the mask itself where none are."""
    if postprocessing.fill_holes:
        return fill_holes(mask)
    return fill_pinholes(mask, postprocessing.pinhole) if postprocessing.pinhole else mask


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask with the background that it encloses, bool (Y, X); as SciPy's binary_fill_holes."""
    outside, count = label_frame(~mask, corners=False)
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
    # The first pixel of a hole has the mask above it and to its left.
    begins = ~mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[1:-1, :-2]
    out = mask.copy()
    _flood(mask, np.flatnonzero(begins), out, side)
    return out


@compiled
def _flood(
    mask: NDArray[np.bool_], begins: NDArray[np.int64], out: NDArray[np.bool_], side: int
) -> None:
    """Flood each hole from its first pixel, into a copy of the mask.

    `begins` are flat indices in the mask without its border. The flood stops where it leaves the
    box, or comes to a row above the first: then this is no hole, or not the place to begin.
    """
    height, width = mask.shape
    most = side * (2 * side - 1)  # pixels on which the box may come to lie
    ys, xs = np.empty(most, np.int64), np.empty(most, np.int64)
    met = np.zeros((side, 2 * side - 1), np.int64)  # the number of the flood that was there last
    for flood in range(1, len(begins) + 1):
        top, start = begins[flood - 1] // (width - 2) + 1, begins[flood - 1] % (width - 2) + 1
        left = right = start
        ys[0], xs[0], found, done = top, start, 1, 0
        met[0, side - 1] = flood
        fits = True
        while fits and done < found:
            y, x = ys[done], xs[done]
            done += 1
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                v, u = y + dy, x + dx
                if mask[v, u]:
                    continue
                left, right = min(left, u), max(right, u)
                if (
                    v < top or v == height - 1 or v - top >= side
                    or u == 0 or u == width - 1 or right - left >= side
                ):  # fmt: skip
                    fits = False
                    break
                if met[v - top, u - start + side - 1] != flood:
                    met[v - top, u - start + side - 1] = flood
                    ys[found], xs[found] = v, u
                    found += 1
        if fits:
            for i in range(found):
                out[ys[i], xs[i]] = True
