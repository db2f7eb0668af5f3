"""Runs: pixels of one value, one after the other along a row.

    . # # . . # .      row 0 from 1 to 3, row 0 from 5 to 6,
    # # # # # # #      row 1 from 0 to 7

Objects are handled run by run: most pixels are background, and a row of an object is added in one
step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.compiled import compiled

WORD = 8  # pixels that are tested at once for a change of value
BYTES = np.uint64(0x0001020304050607)  # times 2 ** (8 * k) its highest byte is k
FEW = 32  # changes a row for which memory is reserved at first

RunArrays = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[Any]]


@dataclass(frozen=True)
class Runs:
    """All runs of an image whose value is not 0, in raster order: arrays (n,)."""

    row: NDArray[np.int32]  # counted through all planes
    start: NDArray[np.int32]  # X of the first pixel
    stop: NDArray[np.int32]  # X behind the last one
    value: NDArray[Any]  # of their pixels

    def __len__(self) -> int:
        return len(self.row)


def runs_of(image: NDArray[Any]) -> Runs:
    """The runs of a mask or of labels, (Y, X) or (Z, Y, X)."""
    return Runs(*_runs(_volume(image)))


def fill(image: NDArray[Any], runs: Runs, values: NDArray[Any]) -> None:
    """Give the pixels of runs values, (n,), in an image, (Y, X) or (Z, Y, X), in place."""
    _fill(_volume(image), runs.row, runs.start, runs.stop, values)


def _volume(image: NDArray[Any]) -> NDArray[Any]:
    """The same as (Z, Y, X): a view, whatever lies between its rows."""
    return image if image.ndim == 3 else image[None]


@compiled
def _runs(image: NDArray[Any]) -> RunArrays:
    """Row, start, stop and value of the runs of an image, (Z, Y, X)."""
    depth, height, _ = image.shape
    places, ends = _changes(image)
    count = i = 0
    for y in range(depth * height):
        line = image[y // height, y % height]
        while i < ends[y]:
            count += line[places[i]] != 0
            i += 1
        i += 1
    # Without a branch, which processors would predict badly: a run that is 0 is written over by
    # the next, the last one into the place that is not returned.
    row, start = np.empty(count + 1, np.int32), np.empty(count + 1, np.int32)
    stop, value = np.empty(count + 1, np.int32), np.empty(count + 1, image.dtype)
    n = i = 0
    for y in range(depth * height):
        line = image[y // height, y % height]
        while i < ends[y]:
            row[n], start[n], stop[n] = y, places[i], places[i + 1]
            value[n] = line[places[i]]
            n += value[n] != 0
            i += 1
        i += 1
    return row[:count], start[:count], stop[:count], value[:count]


@compiled
def _changes(image: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """X of all pixels of an image, (Z, Y, X), that differ from the one before, 0 before the first.

    Those of all rows in one array, each row closed by the width; and the index of each row's
    closing entry, (Z * Y,).
    """
    depth, height, width = image.shape
    found = np.empty((min(FEW, width) + 1) * depth * height, np.int32)
    ends = np.empty(depth * height, np.int64)
    differs = np.zeros(width // WORD * WORD + WORD, np.uint8)
    words = differs.view(np.uint64)
    n = 0
    for y in range(depth * height):
        line = image[y // height, y % height]
        if n + width >= len(found):  # it may not take another row
            more = np.empty(n + _most_changes(image, y), np.int32)
            more[:n] = found[:n]
            found = more
        if width:
            differs[0] = line[0] != 0
        for x in range(1, width):
            differs[x] = line[x] != line[x - 1]
        for i in range(len(words)):
            word = words[i]
            while word != np.uint64(0):
                lowest = word & (~word + np.uint64(1))  # 2 ** (8 * the first byte that is not 0)
                found[n] = WORD * i + np.int64((lowest * BYTES) >> np.uint64(56))
                word ^= lowest
                n += 1
        found[n], ends[y] = width, n
        n += 1
    return found[:n], ends


@compiled
def _most_changes(image: NDArray[Any], first: int) -> int:
    """Entries that `_changes` has for the rows from `first` on, and room for a row of changes."""
    depth, height, width = image.shape
    count = width + 1
    for y in range(first, depth * height):
        line = image[y // height, y % height]
        count += 2
        for x in range(1, width):
            count += line[x] != line[x - 1]
    return int(count)


@compiled
def _fill(
    image: NDArray[Any],
    row: NDArray[np.int32],
    start: NDArray[np.int32],
    stop: NDArray[np.int32],
    values: NDArray[Any],
) -> None:
    """`fill`, of (Z, Y, X)."""
    height = image.shape[1]
    for run in range(len(row)):
        line = image[row[run] // height, row[run] % height]
        for x in range(start[run], stop[run]):
            line[x] = values[run]
