"""The shards of a block, filled frame by frame."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from engine.geometry.arrays import IMAGE, PROBABILITY, ResultArray
from engine.geometry.layout import Block
from engine.inference.outputs import Outputs
from engine.inference.probability import to_8_bit
from engine.plan.plan import StackPlan
from engine.store.committed import shard_keys
from engine.store.folder import JobFolder
from engine.store.ome_zarr import encode_shard, new_shard


class BlockShards:
    """One shard of each of some arrays, zero where nothing was put."""

    def __init__(self, plan: StackPlan, block: Block, arrays: Iterable[ResultArray]) -> None:
        self._plan, self._block = plan, block
        self._arrays = tuple(arrays)
        self.by_kind: dict[str, NDArray[Any]] = {
            array.kind: new_shard(array.shape(plan.layout)) for array in self._arrays
        }

    def put_kept(self, t: int, z: int, pixels: NDArray[Any], outputs: Outputs) -> None:
        """Put what is kept of a frame besides labels: pixels (C, Y, X), and probabilities."""
        if IMAGE in self.by_kind:
            self._put(IMAGE, t, z, pixels)
        if PROBABILITY in self.by_kind:
            self._put(PROBABILITY, t, z, to_8_bit(outputs.probability))

    def _put(self, kind: str, t: int, z: int, values: NDArray[Any]) -> None:
        shard = self.by_kind[kind]
        several = shard.ndim == 5  # else the array has no axis of channels
        shard[self._at(t, z, channels=several)] = values if several else values[0]

    def put_labels(self, t: int, z: int, images: Mapping[str, NDArray[Any]]) -> None:
        """Put a frame's label images, (Y, X), by kind of array."""
        for kind, labels in images.items():
            self.by_kind[kind][self._at(t, z)] = labels

    def take(self, t: int, z: int, others: dict[str, NDArray[Any]]) -> None:
        """Put a frame from other shards of the same block."""
        for kind, shard in self.by_kind.items():
            at = self._at(t, z, channels=shard.ndim == 5)
            shard[at] = others[kind][at]

    def _at(self, t: int, z: int, *, channels: bool = False) -> tuple[int | slice, ...]:
        block = self._block
        middle: tuple[int | slice, ...] = (z - block.z[0],)
        if channels:
            middle = (slice(None), *middle)
        return (t - block.t[0], *middle, slice(0, block.y.size), slice(0, block.x.size))

    def encode(self) -> dict[str, bytes]:
        """Objects by kind of array; each shard is let go of once it is encoded."""
        encoded = {}
        for array in self._arrays:
            shard = self.by_kind.pop(array.kind)
            encoded[array.kind] = encode_shard(array.shape(self._plan.layout), shard)
        return encoded


def put_shards(
    folder: JobFolder, plan: StackPlan, block: Block, encoded: dict[str, bytes]
) -> dict[str, str]:
    """Put encoded shards into place; their checksums by kind of array."""
    keys = shard_keys(plan, block)
    for kind, data in encoded.items():
        folder.results.put(keys[kind], data)
    return {kind: hashlib.sha256(data).hexdigest() for kind, data in encoded.items()}
