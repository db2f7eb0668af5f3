"""The shards of a block while they are being filled: labels, and whatever is kept beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from engine.geometry.arrays import IMAGE, LABELS, PROBABILITY, ResultArray
from engine.geometry.layout import Block
from engine.inference.probability import to_8_bit
from engine.plan.plan import StackPlan
from engine.steps.work import Seen
from engine.store.committed import shards
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

    def keep(self, t: int, z: int, seen: Seen) -> None:
        """Put what is kept of a frame, or of the block's part of it."""
        if (image := self.by_kind.get(IMAGE)) is not None:
            several = image.ndim == 5  # else the stack has no axis of channels
            image[self._at(t, z, channels=several)] = seen.pixels if several else seen.pixels[0]
        if (kept := self.by_kind.get(PROBABILITY)) is not None:
            several = kept.ndim == 5  # else a binary model's, without an axis of classes
            probability = to_8_bit(seen.probability)
            kept[self._at(t, z, channels=several)] = probability if several else probability[0]

    def put_labels(self, t: int, z: int, labels: NDArray[Any]) -> None:
        """Put a frame's labels, (Y, X)."""
        self.by_kind[LABELS][self._at(t, z)] = labels

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
    """Put encoded shards into place; their checksums under the names that records use."""
    places = shards(folder, plan, block)
    for kind, data in encoded.items():
        folder.put(places[kind], data)
    checksums = {array.kind: array.checksum for array in plan.arrays}
    return {checksums[k]: hashlib.sha256(data).hexdigest() for k, data in encoded.items()}
