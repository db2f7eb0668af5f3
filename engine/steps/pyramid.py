"""A block's shards of one array, level by level, from planes that are in memory anyway.

    plane --> level 0    halved --> level 1    halved --> level 2
              "write"    `------------- "levels" ------------'

Where frames are whole, a block of a level is made of one block below, which has its number: whoever
has that one's planes makes every level of them, and reads nothing again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.geometry.arrays import ResultArray, level_layout
from engine.geometry.layout import LabelLayout
from engine.geometry.pyramid import halved
from engine.steps.task import Stopwatch
from engine.store.ome_zarr import ShardOnItsWay


class Pyramid:
    """The shards of an array's first levels that a block makes, 0 where nothing was put."""

    def __init__(
        self, array: ResultArray, layout: LabelLayout, watch: Stopwatch, n_levels: int
    ) -> None:
        self._array, self._watch = array, watch
        self.n_levels = n_levels
        self._shards = {
            level: ShardOnItsWay(array.shape(level_layout(layout, level)))
            for level in range(n_levels)
        }

    def put(self, at: tuple[int, ...], plane: NDArray[np.generic]) -> None:
        """Put a plane, (Y, X), by its index in `new_shard`: the block's part of it, and no more."""
        plane = np.ascontiguousarray(plane, dtype=self._array.dtype)  # as level 0 is read again
        for level, shard in self._shards.items():
            with self._watch.stage(_stage(level)):
                if level:
                    plane = halved(self._array, plane)
                shard.put(at, plane)

    def encode(self, level: int) -> bytes:
        """The object that holds a level's shard, which is let go of."""
        with self._watch.stage(_stage(level)):
            return self._shards.pop(level).encode()


def _stage(level: int) -> str:
    return "levels" if level else "write"
