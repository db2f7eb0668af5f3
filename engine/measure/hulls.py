"""Areas of convex hulls, of all objects at once, from the ends of their rows of pixels.

As scikit-image's `convex_hull_image` defines it: the hull is that of the middles of all pixel
edges, and the pixels counted are those whose centre lies in it or on its border. It is the hull of
the pixels' centres, widened by the diamond that the four middles around a centre make:

    .      the left side of the centres' hull is at L(y); between two rows it is straight. Moved by
   . .     each point of the diamond, it begins in the row y at the least of L(y) - 1/2,
    .      L(y - 1/2) and L(y + 1/2), as far as the hull has such places

Only the leftmost and the rightmost pixel of a row can matter: from row to row, those that lie on or
behind the chord of their neighbours drop out (Andrew's monotone chain, 1979). All of it is whole
numbers: nothing is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.compiled import compiled

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RowEnds:
    """The leftmost and rightmost pixel of an object in each row, in order of object and row."""

    object: Ints  # its label, or any other number
    y: NDArray[np.int32]  # px
    left: NDArray[np.int32]  # px
    right: NDArray[np.int32]  # px, inclusive

    def __len__(self) -> int:
        return len(self.object)

    def of(self, which: NDArray[Any] | slice) -> RowEnds:
        """Only some of the rows, or all in another order."""
        return RowEnds(self.object[which], self.y[which], self.left[which], self.right[which])


def merged_rows(parts: list[RowEnds]) -> RowEnds:
    """One row for each object and y, from parts of objects in any order."""
    names = {"object": np.int64, "y": np.int32, "left": np.int32, "right": np.int32}
    whole = RowEnds(
        *(
            np.concatenate([np.zeros(0, dtype), *(getattr(part, name) for part in parts)])
            for name, dtype in names.items()
        )
    )
    whole = whole.of(np.lexsort((whole.y, whole.object)))
    first = np.ones(len(whole), dtype=bool)
    first[1:] = (np.diff(whole.object) != 0) | (np.diff(whole.y) != 0)
    if first.all():
        return whole
    starts = np.flatnonzero(first)
    return RowEnds(
        whole.object[starts], whole.y[starts],
        np.minimum.reduceat(whole.left, starts), np.maximum.reduceat(whole.right, starts),
    )  # fmt: skip


def convex_areas(rows: RowEnds) -> Ints:
    """Pixels in the convex hull of each object, in order; rows between its own count as well."""
    begins = np.append(np.flatnonzero(np.diff(rows.object, prepend=-1)), len(rows))
    return _areas(begins, rows.y, rows.left, rows.right)


@compiled
def _areas(
    begins: Ints, y: NDArray[np.int32], left: NDArray[np.int32], right: NDArray[np.int32]
) -> Ints:
    """`convex_areas` of the objects whose rows begin there, (n + 1,); the last is their end."""
    areas = np.empty(len(begins) - 1, np.int64)
    for i in range(len(areas)):
        rows = slice(begins[i], begins[i + 1])
        height = np.int64(y[rows][-1]) - y[rows][0] + 1
        # Seen in a mirror, right sides are left ones.
        beyond = _first_pixels(y[rows], left[rows]) + _first_pixels(y[rows], -right[rows])
        areas[i] = height - beyond
    return areas


@compiled
def _first_pixels(y: NDArray[np.int32], x: NDArray[np.int32]) -> int:
    """Sum of the first pixels of a hull in each of its rows, of the leftmost pixels of rows."""
    corners = _corners(y, x)
    total, above = 0, np.int64(2**62)  # L(y - 1/2) of the first row lies outside
    for i in range(len(corners) - 1):
        this, after = corners[i], corners[i + 1]
        run, rise = np.int64(y[after]) - y[this], np.int64(x[after]) - x[this]
        for ahead in range(run):
            middle = x[this] - (run - 2 * rise * ahead) // (2 * run)  # L(y) - 1/2, rounded up
            below = x[this] - (-rise * (2 * ahead + 1)) // (2 * run)  # L(y + 1/2), rounded up
            total += min(middle, below, above)
            above = below
    return int(total + min(np.int64(x[corners[-1]]), above))


@compiled
def _corners(y: NDArray[np.int32], x: NDArray[np.int32]) -> Ints:
    """Which of the leftmost pixels of rows, from the top, are corners of their hull's left side."""
    corners = np.empty(len(y), np.int64)
    count = 0
    for i in range(len(y)):
        while count > 1:
            before, last = corners[count - 2], corners[count - 1]
            down, across = np.int64(y[last]) - y[before], np.int64(x[last]) - x[before]
            if across * (np.int64(y[i]) - y[last]) < (np.int64(x[i]) - x[last]) * down:
                break
            count -= 1
        corners[count] = i
        count += 1
    return corners[:count]
