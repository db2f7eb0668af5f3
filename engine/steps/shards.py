"""The shards of a block, filled frame by frame."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from engine.geometry.arrays import IMAGE, PROBABILITY, ResultArray
from engine.geometry.layout import Block
from engine.inference.outputs import Outputs
from engine.inference.probability import to_8_bit
from engine.plan.plan import StackPlan
from engine.steps.pyramid import Pyramid
from engine.steps.task import Stopwatch
from engine.store.committed import shard_keys
from engine.store.folder import JobFolder


class BlockShards:
    """The shards of some arrays, zero where nothing was put; of all levels, where frames are whole.

    Time is added to `watch`: to "write" for level 0, to "levels" for those above.
    """

    def __init__(
        self,
        plan: StackPlan,
        block: Block,
        arrays: Iterable[ResultArray],
        watch: Stopwatch,
        *,
        with_levels: bool = True,
    ) -> None:
        self._block = block
        self._arrays = {array.kind: array for array in arrays}
        self._pyramids = {
            kind: Pyramid(
                array, plan.layout, watch, array.levels_of_block(plan.layout) if with_levels else 1
            )
            for kind, array in self._arrays.items()
        }

    @property
    def above(self) -> range:
        """The levels above level 0 that any of the arrays has here."""
        return range(1, max((one.n_levels for one in self._pyramids.values()), default=1))

    def put_kept(self, t: int, z: int, pixels: NDArray[Any], outputs: Outputs) -> None:
        """Put what is kept of a frame besides labels: pixels (C, Y, X), and probabilities."""
        if IMAGE in self._arrays:
            self._put(IMAGE, t, z, pixels)
        if PROBABILITY in self._arrays:
            self._put(PROBABILITY, t, z, to_8_bit(outputs.probability))

    def put_labels(self, t: int, z: int, images: Mapping[str, NDArray[Any]]) -> None:
        """Put a frame's label images, (Y, X), by kind of array."""
        for kind, labels in images.items():
            self._put(kind, t, z, labels[None])

    def take(self, t: int, z: int, others: dict[str, NDArray[Any]]) -> None:
        """Put a frame from other shards of the same block, as `decode_shard` gives them."""
        at, rows, columns = self._at(t, z), self._block.y.size, self._block.x.size
        for kind, array in self._arrays.items():
            other = others[kind][..., :rows, :columns]  # the last chunks may reach beyond
            self._put(kind, t, z, other[at[0], :, at[1]] if array.channels else other[at][None])

    def _put(self, kind: str, t: int, z: int, planes: NDArray[Any]) -> None:
        """Put a frame's planes, (C, Y, X): the first alone, where the array has no channels."""
        (t, z), n = self._at(t, z), self._arrays[kind].channels
        for c, plane in enumerate(planes[: n or 1]):
            self._pyramids[kind].put((t, c, z) if n else (t, z), plane)

    def _at(self, t: int, z: int) -> tuple[int, int]:
        return t - self._block.t[0], z - self._block.z[0]

    def encode(self, level: int = 0) -> Iterator[tuple[str, bytes]]:
        """Objects of a level with their kinds of array; each shard is let go of once encoded."""
        for kind, pyramid in self._pyramids.items():
            if level < pyramid.n_levels:
                yield kind, pyramid.encode(level)


def put_shards(
    folder: JobFolder, plan: StackPlan, block: Block, encoded: dict[str, bytes]
) -> dict[str, str]:
    """Put encoded shards into place; their checksums by kind of array."""
    keys = shard_keys(plan, block)
    for kind, data in encoded.items():
        folder.results.put(keys[kind], data)
    return {kind: hashlib.sha256(data).hexdigest() for kind, data in encoded.items()}
