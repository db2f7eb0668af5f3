"""Areas of convex hulls, of all objects at once, from the ends of their rows of pixels.

As scikit-image's `convex_hull_image` defines it: the hull is that of the middles of all pixel
edges, and the pixels counted are those whose centre lies in it or on its border. It is the hull of
the pixels' centres, widened by the diamond that the four middles around a centre make:

    .      the left side of the centres' hull is at L(y); between two rows it is straight. Moved by
   . .     each point of the diamond, it begins in the row y at the least of L(y) - 1/2,
    .      L(y - 1/2) and L(y + 1/2), as far as the hull has such places

Only the leftmost and the rightmost pixel of a row can matter. The convex envelope of these is found
by removing points that lie on or behind the chord of their two neighbours, again and again, of all
objects at the same time. A corner of the hull lies before every chord and always stays; so the
order of removal, and removing many at once, does not matter. All of it is whole numbers: nothing is
rounded.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
ROWS = 2**15  # looked at together: what that takes does not grow with the objects of a frame


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
    starts = np.flatnonzero(np.diff(rows.object, prepend=-1))
    cuts = np.searchsorted(starts, np.arange(0, len(rows), ROWS))
    ends = [*dict.fromkeys(starts[cuts[cuts < len(starts)]].tolist()), len(rows)]
    return np.concatenate(
        [np.zeros(0, np.int64), *(_areas(rows, *ends) for ends in itertools.pairwise(ends))]
    )


def _areas(all_rows: RowEnds, start: int, stop: int) -> Ints:
    """`convex_areas` of the objects that these rows are all of."""
    rows = all_rows.of(slice(start, stop))
    begins = np.diff(rows.object, prepend=-1) != 0
    starts = np.flatnonzero(begins)
    number, count = np.cumsum(begins) - 1, len(starts)
    first, last = rows.y[starts], rows.y[np.append(starts[1:], len(rows)) - 1]
    # Every row of the hull: an object may have rows between that lack pixels of it.
    height = np.tile(last.astype(np.int64) - first + 1, 2)
    # Both sides at once: seen in a mirror, right sides are the left ones of further objects.
    corners = _corners(
        np.concatenate([number, number + count]),
        np.tile(rows.y.astype(np.int64), 2),
        np.concatenate([rows.left, -rows.right.astype(np.int64)]),
    )
    before = np.cumsum(height) - height
    beyond = np.add.reduceat(_first_pixels(*corners, height), before)
    areas: Ints = height[:count] - beyond[:count] - beyond[count:]
    return areas


def _first_pixels(number: Ints, y: Ints, x: Ints, height: Ints) -> Ints:
    """First pixel of the hull in every row of each object, from the corners of its left side.

    Objects have `height` rows each.
    """
    ends = np.append(number[1:] != number[:-1], True)  # behind the last corner nothing changes
    run = np.where(ends, 1, np.diff(y, append=0))
    rise = np.where(ends, 0, np.diff(x, append=0))
    # A side of the hull is that of the rows from its upper corner on to the one above its lower.
    often = np.where(ends, 1, run)
    side = np.repeat(np.arange(len(number)), often)
    ahead = np.arange(len(side)) - np.repeat(np.cumsum(often) - often, often)
    x, run, rise = x[side], run[side], rise[side]
    middle = x - (run - 2 * rise * ahead) // (2 * run)  # L(y) - 1/2, rounded up
    below = x - (-rise * (2 * ahead + 1)) // (2 * run)  # L(y + 1/2), which the next row has above
    found: Ints = np.minimum(middle, below)
    begins = np.cumsum(height) - height
    uppermost = found[begins]
    np.minimum(found[1:], below[:-1], out=found[1:])
    found[begins] = uppermost
    return found


def _corners(number: Ints, y: Ints, x: Ints) -> tuple[Ints, Ints, Ints]:
    """The points that are corners of the envelope, or its ends; in order of number and y."""
    left, done = np.arange(len(number)), []
    while len(left):
        same = np.diff(number[left]) == 0
        down, across = np.diff(y[left]), np.diff(x[left])
        behind = np.zeros(len(left), dtype=bool)
        behind[1:-1] = same[:-1] & same[1:] & (across[:-1] * down[1:] >= across[1:] * down[:-1])
        # An object that loses no point is done: one that takes many rounds keeps no others.
        begins = np.append(0, np.flatnonzero(~same) + 1)
        loses = np.logical_or.reduceat(behind, begins)
        goes_on = np.repeat(loses, np.diff(begins, append=len(left)))
        done.append(left[~goes_on])
        left = left[goes_on & ~behind]
    corners = np.sort(np.concatenate(done), kind="stable")
    return number[corners], y[corners], x[corners]
