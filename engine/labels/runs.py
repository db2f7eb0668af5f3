"""Runs: pixels of one value, one after the other along a row.

    . # # . . # .      row 0 from 1 to 3, row 0 from 5 to 6,
    # # # # # # #      row 1 from 0 to 7

What is asked of objects goes from run to run: most pixels of most frames are background, and of an
object a row is added in one go.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.compiled import compiled

WORD = 8  # pixels of which is asked at once whether a run begins or ends among them
FEW = 32  # changes a row for which room is made at first
BYTES = np.uint64(0x0001020304050607)  # times 2 ** (8 * k) its highest byte is k

RunArrays = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[Any]]


@dataclass(frozen=True)
class Runs:
    """All runs of an image whose value is not 0, in raster order: arrays (n,)."""

    row: NDArray[np.int32]  # of an image of several planes the row in all of them
    start: NDArray[np.int32]  # X of the first pixel
    stop: NDArray[np.int32]  # X behind the last one
    value: NDArray[Any]  # of their pixels

    def __len__(self) -> int:
        return len(self.row)


def runs_of(image: NDArray[Any]) -> Runs:
    """The runs of a mask or of labels, (Y, X) or (Z, Y, X)."""
    return Runs(*_runs(_rows(image)))


def fill(image: NDArray[Any], runs: Runs, values: NDArray[Any]) -> None:
    """Give the pixels of runs values, (n,), in an image, (Y, X) or (Z, Y, X), in place."""
    volume = image if image.ndim == 3 else image[None]  # a view, whatever lies between its rows
    _fill(volume, runs.row, runs.start, runs.stop, values)


def _rows(image: NDArray[Any]) -> NDArray[Any]:
    """The same as (rows, X)."""
    return image.reshape(math.prod(image.shape[:-1]), image.shape[-1])


@compiled
def _runs(image: NDArray[Any]) -> RunArrays:
    """Row, start, stop and value of the runs of an image, (rows, X)."""
    places, ends = _changes(image)
    most = len(places)
    row, start, stop = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int32)
    value = np.empty(most, image.dtype)
    n = i = 0
    for y in range(len(image)):
        while i < ends[y]:
            # Without a branch, which processors would foresee badly: what is 0 is written over.
            row[n], start[n], stop[n] = y, places[i], places[i + 1]
            value[n] = image[y, places[i]]
            n += value[n] != 0
            i += 1
        i += 1
    return row[:n].copy(), start[:n].copy(), stop[:n].copy(), value[:n].copy()


@compiled
def _changes(image: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """X of all pixels of an image, (rows, X), that differ from the one before, 0 before the first.

    Each row ends with its width. Both are in one array, with the places of these ends, (rows,).
    """
    height, width = image.shape
    found = np.empty(FEW * height, np.int32)
    ends = np.empty(height, np.int64)
    differs = np.zeros(width // WORD * WORD + WORD, np.uint8)
    words = differs.view(np.uint64)
    n = 0
    for y in range(height):
        if n + width >= len(found):  # it may not take another row
            more = np.empty(2 * len(found) + width + 1, np.int32)
            more[:n] = found[:n]
            found = more
        if width:
            differs[0] = image[y, 0] != 0
        for x in range(1, width):
            differs[x] = image[y, x] != image[y, x - 1]
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
        z, y = divmod(row[run], height)
        for x in range(start[run], stop[run]):
            image[z, y, x] = values[run]
