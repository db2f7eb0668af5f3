"""Runs of equal pixels along the rows of a plane: a hundredth of the numbers that its pixels are.

    . # # . . # .      0 1 1 2 2 2 0      Components, areas, first pixels and measures of objects
    # # # # # # #      3 3 0 0 0 0 4      are those of their runs: three in the mask, four among
                                          the labels

A plane of noise has nearly as many runs as pixels; there pixels are the better way (`is_noise`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]
PIECE = 2**20  # flags looked at together: what that takes does not grow with the plane
NOISE = 16  # px; a plane with more than one run for so many pixels


@dataclass(frozen=True)
class Runs:
    """Runs of a plane, (Y, X), in raster order."""

    shape: tuple[int, int]
    row: Ints  # (n,): Y of each
    start: Ints  # (n,): raster index of its first pixel
    stop: Ints  # (n,): that behind its last pixel
    label: NDArray[Any] | None = None  # (n,): its value, of a label image

    def __len__(self) -> int:
        return len(self.start)

    @property
    def is_noise(self) -> bool:
        """Whether there are so many that pixels are the better way."""
        return len(self) * NOISE > self.shape[0] * self.shape[1]

    @property
    def length(self) -> Ints:
        """Pixels of each, (n,)."""
        return self.stop - self.start

    @property
    def column(self) -> Ints:
        """X of the first pixel of each, (n,)."""
        return self.start - self.row * self.shape[1]

    def of(self, which: slice) -> Runs:
        """Only some of them."""
        label = None if self.label is None else self.label[which]
        return Runs(self.shape, self.row[which], self.start[which], self.stop[which], label)

    def pixels(self) -> Ints:
        """Raster indices of all pixels in them, in order."""
        return ranges(self.start, self.length)

    def painted(self, values: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """A plane, (Y, X), with a value, (n,), for each run, and 0 elsewhere."""
        edges = np.zeros(2 * len(self) + 2, dtype=np.int64)
        edges[1:-1:2], edges[2:-1:2] = self.start, self.stop
        edges[-1] = self.shape[0] * self.shape[1]
        colours = np.zeros(2 * len(self) + 1, dtype=np.uint32)
        colours[1::2] = values
        return np.repeat(colours, np.diff(edges)).reshape(self.shape)


def ranges(start: Ints, length: Ints) -> Ints:
    """Whole numbers from each `start` on, as many as its `length`, which is 1 or more."""
    steps = np.ones(int(length.sum()), dtype=np.int64)
    if len(steps):
        steps[0] = start[0]
        steps[np.cumsum(length[:-1])] = start[1:] - start[:-1] - length[:-1] + 1
    return np.cumsum(steps, out=steps)


def runs_of_mask(mask: NDArray[np.bool_]) -> Runs:
    """The runs of True in a mask, (Y, X)."""
    edges = _edges(np.ascontiguousarray(mask).reshape(-1))
    return _by_row(mask.shape, edges[0::2], edges[1::2])


def runs_of_labels(labels: NDArray[Any]) -> Runs:
    """The runs of equal labels in a plane, (Y, X), but for those of 0."""
    flat = np.ascontiguousarray(labels).reshape(-1)
    edges = _edges(flat)
    value = flat[edges[:-1]]
    begins = np.flatnonzero(value)
    return _by_row(labels.shape, edges[begins], edges[begins + 1], value[begins])


def _edges(flat: NDArray[Any]) -> Ints:
    """Where a value, (n,), is not the one before it, from 0 to n; around them is 0."""
    changes = np.empty(len(flat) + 1, dtype=bool)
    np.not_equal(flat[1:], flat[:-1], out=changes[1:-1])
    changes[0], changes[-1] = flat[0] != 0, flat[-1] != 0
    return places_of(changes)


def _by_row(
    shape: tuple[int, ...], start: Ints, stop: Ints, label: NDArray[Any] | None = None
) -> Runs:
    """Runs along the pixels of a plane, cut where a row ends."""
    width = shape[1]
    row = start // width
    often = (stop - 1) // width - row + 1
    if (often > 1).any():
        row = ranges(row, often)
        label = None if label is None else np.repeat(label, often)
        start = np.maximum(np.repeat(start, often), row * width)
        stop = np.minimum(np.repeat(stop, often), (row + 1) * width)
    return Runs((shape[0], width), row, start, stop, label)


def places_of(flags: NDArray[np.bool_]) -> Ints:
    """Indices of what is set among flags, (n,): eight at a time, since few are."""
    found = [np.zeros(0, dtype=np.int64)]
    for begin in range(0, len(flags), PIECE):
        piece = flags[begin : begin + PIECE]
        whole = len(piece) // 8 * 8
        words = piece[:whole].view(np.uint64)
        at = np.flatnonzero(words != 0)
        within = np.flatnonzero(words[at].view(bool))
        found.append(8 * at[within >> 3] + (within & 7) + begin)
        found.append(np.flatnonzero(piece[whole:]) + (whole + begin))
    return np.concatenate(found)


def components_of(runs: Runs) -> tuple[Ints, int]:
    """Number of the 8-connected component of each run, from 0, and how many there are.

    They are numbered in raster order of their first pixels.
    """
    # In rows of one pixel more, what begins a row does not touch what ends the one before.
    start, stop, stride = runs.start + runs.row, runs.stop + runs.row, runs.shape[1] + 1
    # Those of the row below that touch a run, by a corner at the least, follow each other.
    first = np.searchsorted(stop, start + stride)
    often = np.searchsorted(start, stop + stride, side="right") - first
    ends = np.cumsum(often)
    links = np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - ends + often, often)
    return connected(np.concatenate([[0], ends]), links)


def connected(ends: Ints, links: Ints) -> tuple[Ints, int]:
    """Number of the component of each of n points, (n,), and how many components there are.

    Point i is linked with `links[ends[i] : ends[i + 1]]`. Components are numbered from 0, in the
    order of their first points.
    """
    size = len(ends) - 1
    graph = sparse.csr_matrix((np.ones(len(links)), links, ends), (size, size))
    count, found = connected_components(graph, directed=False)
    first = np.empty(count, dtype=np.int64)
    first[found[::-1]] = np.arange(size - 1, -1, -1)  # of equal indices the last assignment stays
    number = np.empty(count, dtype=np.int64)
    number[np.argsort(first)] = np.arange(count)
    return number[found], int(count)
