"""Instance labels of a binary mask: connected components, by runs of pixels along the rows.

    . # # . . # .      . 1 1 . . 2 .     a run joins every run that it touches in the row
    # # # # # # #      1 1 1 1 1 1 1     before

Labels count in raster order of objects' first pixels, since of joined runs the first stands for
all (Rosenfeld and Pfaltz 1966; the rest is union-find).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.compiled import compiled
from engine.labels.runs import Runs, fill, runs_of

BAND = 256  # rows handled at once where a temporary would be larger than the labels themselves


def label_frame(mask: NDArray[np.bool_], *, corners: bool = True) -> tuple[NDArray[np.uint32], int]:
    """Label the components of `mask`, bool (Y, X), as uint32; and their number.

    8-connected, or 4-connected without `corners`. Ids are 1, 2, 3, ... in raster order of each
    object's first pixel; 0 is background.
    """
    labels = np.empty(mask.shape, dtype=np.uint32)
    return labels, _label(mask[None], labels[None], corners=corners, connect_z=False)


def label_part(mask: NDArray[np.bool_], out: NDArray[np.uint32], *, connect_z: bool) -> int:
    """Label the components of a part of a stitch group, bool (Z, Y, X), into `out`; their number.

    8-connected in each plane, 26-connected with `connect_z`. Ids count from 1, in raster order.
    """
    return _label(mask, out, corners=True, connect_z=connect_z)


def _label(
    mask: NDArray[np.bool_], out: NDArray[np.uint32], *, corners: bool, connect_z: bool
) -> int:
    """As `label_part`; 4-connected in each plane without `corners`."""
    depth, height, _ = mask.shape
    runs = runs_of(mask)
    labels, count = _joined(runs.row, runs.start, runs.stop, depth, height, corners, connect_z)
    out[...] = 0
    fill(out, runs, labels)
    return count


@compiled
def _joined(
    row: NDArray[np.int32],
    start: NDArray[np.int32],
    stop: NDArray[np.int32],
    depth: int,
    height: int,
    corners: bool,
    connect_z: bool,
) -> tuple[NDArray[np.uint32], int]:
    """The label of each run, (n,), of a mask of `depth` planes of `height` rows; and how many."""
    reach = 1 if corners else 0
    first = np.searchsorted(row, np.arange(depth * height + 1))  # run of each row
    # Of each run an earlier one that it is joined to, or itself.
    parent = np.arange(len(row), dtype=np.uint32)
    for z in range(depth):
        for y in range(height):
            at = z * height + y
            if y:
                _meet(first, at, at - 1, start, stop, parent, reach)
            if connect_z and z:
                for other in range(max(y - 1, 0), min(y + 2, height)):
                    _meet(first, at, (z - 1) * height + other, start, stop, parent, reach)
    count = np.uint32(0)
    for run in range(len(parent)):
        if parent[run] == run:
            count += np.uint32(1)
            parent[run] = count
        else:  # one that comes before, and has its label by now
            parent[run] = parent[parent[run]]
    return parent, int(count)


@compiled
def _meet(
    first: NDArray[np.int64],
    row: int,
    other: int,
    start: NDArray[np.int32],
    stop: NDArray[np.int32],
    parent: NDArray[np.uint32],
    reach: int,
) -> None:
    """Join the runs of a row with those of another that they touch."""
    begin, end = first[other], first[other + 1]
    for run in range(first[row], first[row + 1]):
        while begin < end and stop[begin] <= start[run] - reach:
            begin += 1  # further runs begin further on
        met = begin
        while met < end and start[met] < stop[run] + reach:
            one, two = _root(parent, met), _root(parent, run)
            parent[max(one, two)] = min(one, two)
            met += 1


@compiled
def _root(parent: NDArray[np.uint32], run: int) -> int:
    """The first run, of those found so far, that a run is joined to."""
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


def areas_and_first_pixels(
    labels: NDArray[np.uint32], count: int, runs: Runs | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels, and raster index of the first, of each of `count` labels, (count,) both.

    Labels are (Y, X) or (Z, Y, X); `runs` are theirs, if they are known. Of a label that does not
    occur both are 0.
    """
    runs = runs_of(labels) if runs is None else runs
    return _areas_and_first(runs.row, runs.start, runs.stop, runs.value, labels.shape[-1], count)


def at_border(labels: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Which of `count` labels, (Y, X), touch the border of the frame, (count,)."""
    touches = np.zeros(count + 1, dtype=bool)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        touches[side] = True
    return touches[1:]


def renumber(
    labels: NDArray[np.uint32],
    kept: NDArray[np.bool_],
    first: NDArray[np.int64],
    runs: Runs | None = None,
) -> int:
    """Drop labels, (Y, X) or (Z, Y, X), that are not `kept`, (count,), in place; how many stay.

    These are numbered from 1 on, in the order of their `first` pixels, (count,). `runs` are those
    of the labels, if they are known.
    """
    order = np.flatnonzero(kept)
    order = order[np.argsort(first[order], kind="stable")]
    new = np.zeros(len(kept) + 1, dtype=np.uint32)
    new[order + 1] = np.arange(1, len(order) + 1, dtype=np.uint32)
    runs = runs_of(labels) if runs is None else runs
    fill(labels, runs, new[runs.value])
    return len(order)


def bands(image: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Views of BAND rows each, from the top: their sums depend on nothing but the image."""
    return (image[start : start + BAND] for start in range(0, len(image), BAND))


@compiled
def _areas_and_first(
    row: NDArray[np.int32],
    start: NDArray[np.int32],
    stop: NDArray[np.int32],
    value: NDArray[np.uint32],
    width: int,
    count: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`areas_and_first_pixels` of the labels whose runs are these, `width` px wide."""
    areas, first = np.zeros(count + 1, dtype=np.int64), np.zeros(count + 1, dtype=np.int64)
    for run in range(len(row)):
        label = value[run]
        if not areas[label]:
            first[label] = np.int64(row[run]) * width + start[run]
        areas[label] += stop[run] - start[run]
    return areas[1:], first[1:]
