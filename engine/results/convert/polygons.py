"""Outlines along the edges of pixels, as polygons that GeoJSON and OGC call valid.

    . . . .        an object's boundary runs between pixels, with the object at its right hand;
    . # # .        corners are points (x, y) that count from the outer corner of pixel (0, 0), so
    . # . .        that the area of the polygon is the number of pixels
    . . . .

No lean, well-kept library does just this: contours at a level lie between the pixels' centres, and
what follows edges comes with GDAL.

An object may hang together by corners alone. Each part that hangs together by sides is one polygon
then: a ring of its own, and its holes. Where a ring comes back to a corner that it has passed, it
is split there into two: one of them is a hole that touches the outside, as polygons may have.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Point = tuple[int, int]  # x, y
Ring = list[Point]  # closed: its last point is its first


def polygons(mask: NDArray[np.bool_], origin: Point = (0, 0)) -> list[list[Ring]]:
    """The polygons of a mask (Y, X): for each its outer ring, then its holes.

    `origin` is x, y of the mask's first pixel. Rings are closed; seen with y downwards, outer ones
    run clockwise and holes against it.
    """
    parts, count = ndimage.label(mask)
    boxes: Any = ndimage.find_objects(parts)
    found = []
    for n in range(count):
        rows, columns = boxes[n]
        rings = _rings(parts[rows, columns] == n + 1)
        outer = [ring for ring in rings if _signed_area(ring) > 0]
        holes = [ring for ring in rings if _signed_area(ring) < 0]
        shift = (origin[0] + columns.start, origin[1] + rows.start)
        found.append([[(x + shift[0], y + shift[1]) for x, y in ring] for ring in outer + holes])
    return found


def _rings(part: NDArray[np.bool_]) -> list[Ring]:
    """The boundary of one part, cut into rings none of which passes a corner twice."""
    leads = _edges(part)
    rings: list[Ring] = []
    while leads:
        start = next(iter(leads))
        path: list[Point] = [start]
        at: dict[Point, int] = {start: 0}  # corners of the path, and where they are in it
        while path[-1] in leads:
            here = path[-1]
            onward = leads[here]
            there = onward.pop()
            if not onward:
                del leads[here]
            if there in at:  # a ring is closed: it leaves the path
                first = at[there]
                rings.append(_corners(path[first:]))
                for point in path[first + 1 :]:
                    del at[point]
                del path[first + 1 :]
            else:
                at[there] = len(path)
                path.append(there)
    return rings


def _edges(part: NDArray[np.bool_]) -> dict[Point, list[Point]]:
    """Unit edges with the part at their right: from each corner to where they lead."""
    framed = np.pad(part, 1)
    here = framed[1:-1, 1:-1]
    steps = [  # which neighbour is not of the part; where the edge begins and ends, (x, y)
        (framed[:-2, 1:-1], (0, 0), (1, 0)),  # above: from left to right
        (framed[1:-1, 2:], (1, 0), (1, 1)),  # right: down
        (framed[2:, 1:-1], (1, 1), (0, 1)),  # below: from right to left
        (framed[1:-1, :-2], (0, 1), (0, 0)),  # left: up
    ]
    leads: dict[Point, list[Point]] = {}
    for neighbour, (x0, y0), (x1, y1) in steps:
        for y, x in np.argwhere(here & ~neighbour).tolist():
            leads.setdefault((x + x0, y + y0), []).append((x + x1, y + y1))
    return leads


def _corners(path: list[Point]) -> Ring:
    """A ring without the points at which it goes straight on, closed."""
    before, after = [path[-1], *path[:-1]], [*path[1:], path[0]]
    ring = [
        p for b, p, a in zip(before, path, after, strict=True)
        if (p[0] - b[0]) * (a[1] - p[1]) != (p[1] - b[1]) * (a[0] - p[0])
    ]  # fmt: skip
    return [*ring, ring[0]]


def _signed_area(ring: Ring) -> int:
    """Twice the area of a ring; positive where it runs clockwise, with y downwards."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(ring))
