"""Areas of convex hulls, of all objects at once, from the ends of their rows of pixels.

As scikit-image's `convex_hull_image` defines it: the hull is that of the middles of all pixel
edges, and the pixels counted are those whose centre lies in it or on its border. Only the leftmost
and the rightmost pixel of a row can matter. In half pixels, a row at y from pixel x on gives the
left side

    (2y - 1, 2x)  (2y, 2x - 1)  (2y + 1, 2x)        +--.--+     y grows downwards
                                                    .  x  .
                                                    +--.--+

whose convex envelope is found by removing points that lie on or behind the chord of their two
neighbours, again and again, of all objects at the same time. A corner of the hull lies before every
chord and always stays; so the order of removal, and removing many at once, does not matter. All of
it is whole numbers: nothing is rounded.
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
    number = np.cumsum(begins) - 1
    starts = np.flatnonzero(begins)
    first, last = rows.y[starts], rows.y[np.r_[starts[1:], len(rows)] - 1]
    # Every row of the hull: an object may have rows between that lack pixels of it.
    height = last - first + 1
    owner = np.repeat(np.arange(len(starts)), height)
    before = np.cumsum(height) - height
    y = np.arange(len(owner)) - np.repeat(before - first, height)
    left = _envelope(number, rows.y, rows.left, owner, y)
    right = -_envelope(number, rows.y, -rows.right, owner, y)
    areas: Ints = np.add.reduceat(right - left + 1, before)
    return areas


def _envelope(
    number: Ints, y: NDArray[np.int32], x: NDArray[np.int32], owner: Ints, at: Ints
) -> Ints:
    """First pixel of the hull in each row `at` of the object `owner`, where `x` begin its rows."""
    number = np.repeat(number, 3)
    ys, xs = (np.repeat(2 * values.astype(np.int64), 3) for values in (y, x))
    ys[0::3] -= 1
    xs[1::3] -= 1
    ys[2::3] += 1
    new = np.ones(len(ys), dtype=bool)
    new[1:] = (np.diff(number) != 0) | (np.diff(ys) != 0)
    starts = np.flatnonzero(new)  # rows that follow each other share the edge between them
    number, ys, xs = _corners(number[starts], ys[starts], np.minimum.reduceat(xs, starts))
    most = 2 * (int(y.max()) - int(y.min())) + 4
    base = 2 * int(y.min()) - 1
    keys = number * most + ys - base
    i = np.searchsorted(keys, owner * most + 2 * at - base, side="right") - 1
    run, rise = ys[i + 1] - ys[i], xs[i + 1] - xs[i]
    ahead = xs[i] * run + rise * (2 * at - ys[i])  # half pixels times `run`
    found: Ints = -(-ahead // (2 * run))
    return found


def _corners(number: Ints, y: Ints, x: Ints) -> tuple[Ints, Ints, Ints]:
    """The points that are corners of the envelope, or its ends; in order of number and y."""
    done = []
    while len(number):
        behind = np.zeros(len(number), dtype=bool)
        inner = slice(1, -1)
        before, after = slice(None, -2), slice(2, None)
        behind[inner] = (
            (number[before] == number[after])
            & ((x[inner] - x[before]) * (y[after] - y[before])
               >= (x[after] - x[before]) * (y[inner] - y[before]))
        )  # fmt: skip
        # An object that loses no point is done: one that takes many rounds keeps no others.
        begins = np.flatnonzero(np.r_[True, number[1:] != number[:-1]])
        loses = np.logical_or.reduceat(behind, begins)
        goes_on = np.repeat(loses, np.diff(np.r_[begins, len(number)]))
        done.append((number[~goes_on], y[~goes_on], x[~goes_on]))
        keep = goes_on & ~behind
        number, y, x = number[keep], y[keep], x[keep]
    whole = [np.concatenate([part[k] for part in done]) for k in range(3)]
    order = np.argsort(whole[0], kind="stable")
    return whole[0][order], whole[1][order], whole[2][order]
