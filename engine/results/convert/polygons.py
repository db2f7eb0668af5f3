"""Outlines along the edges of pixels, as polygons that GeoJSON and OGC call valid.

    . . . .        an object's boundary runs between pixels; corners are points (x, y) that count
    . # # .        from the outer corner of pixel (0, 0), so that the area of a polygon is its
    . # . .        number of pixels
    . . . .

Shapely joins the straight pieces of all boundaries into faces. A face is part of the object or one
of its holes. Parts that touch at a corner alone are polygons of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import MissingExtra, install_command

try:
    import shapely
except ModuleNotFoundError:
    raise MissingExtra(f"--to geojson needs Shapely: {install_command('qupath')}") from None

Point = tuple[int, int]  # x, y
Ring = list[list[int]]  # of points, closed: its last point is its first


def polygons(mask: NDArray[np.bool_], origin: Point = (0, 0)) -> list[list[Ring]]:
    """The polygons of a mask (Y, X): for each its outer ring, then its holes.

    `origin` is x, y of the mask's first pixel. Rings are those of GeoJSON (RFC 7946): outer ones
    run counterclockwise where y points up, holes clockwise.
    """
    faces = shapely.get_parts(shapely.polygonize(shapely.linestrings(_pieces(mask))))
    x, y = np.floor(shapely.get_coordinates(shapely.point_on_surface(faces))).astype(int).T
    found = shapely.orient_polygons(faces[mask[y, x]])
    return [[_ring(ring, origin) for ring in (one.exterior, *one.interiors)] for one in found]


def _pieces(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The straight pieces of all boundaries, from corner to corner: (pieces, 2, x and y).

    On each line of pixel edges a piece begins at every other corner and ends at the next. Where
    two pixels touch at a corner alone, one piece ends and another begins.
    """
    framed = np.pad(mask, 1).astype(np.int8)
    above, below = framed[:-1], framed[1:]
    around = above[:, :-1] + above[:, 1:] + below[:, :-1] + below[:, 1:]  # pixels at each corner
    touching = (around == 2) & (above[:, :-1] == below[:, 1:])
    ends = (around % 2) + 2 * touching  # of pieces along each axis
    y, x = np.nonzero(ends)
    across = np.repeat(np.stack([x, y], axis=1), ends[y, x], axis=0)
    x, y = np.nonzero(ends.T)
    down = np.repeat(np.stack([x, y], axis=1), ends[y, x], axis=0)
    return np.concatenate([across, down]).reshape(-1, 2, 2)


def _ring(ring: Any, origin: Point) -> Ring:
    points: Ring = (shapely.get_coordinates(ring).astype(int) + origin).tolist()
    return points
