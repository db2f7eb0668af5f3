"""Shards of labels and probabilities as Zarr's sharding codec has them, without its event loop.

    chunk, chunk, ...    zstd at level 1, in Morton order
    index                place and length of each chunk in C order, 64 bits each, and its CRC-32C

Zarr takes as long again as the compression itself (benchmarks/results/stages.md), and a shard's
bytes must not follow from its version. That both write the same is what tests/store/ looks at.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from engine.geometry.arrays import ArrayShape

ZSTD_LEVEL = 1
_ABSENT = np.iinfo(np.uint64).max  # place and length of a chunk that is not stored
_CRC = 4  # bytes


def encode(shape: ArrayShape, shard: NDArray[Any]) -> bytes:
    """The object that holds a shard's pixels, in any shape of as many."""
    pixels = shard.reshape(shape.shard)
    grid, codec = _grid(shape), Zstd(level=ZSTD_LEVEL)
    index = np.empty((*grid, 2), dtype="<u8")
    chunks, place = [], 0
    dtype = np.dtype(shape.dtype).newbyteorder("<")
    for at in _morton(grid):
        part = pixels[
            tuple(slice(i * n, (i + 1) * n) for i, n in zip(at, shape.chunk, strict=True))
        ]
        chunks.append(codec.encode(np.ascontiguousarray(part, dtype=dtype)))
        index[at] = place, len(chunks[-1])
        place += len(chunks[-1])
    chunks += [index.tobytes(), google_crc32c.value(index.tobytes()).to_bytes(_CRC, "little")]
    return b"".join(chunks)


def planes(shape: ArrayShape, data: bytes) -> Iterator[NDArray[Any]]:
    """The planes (Y, X) of a shard in order.

    They are decoded one by one, and not to be written to. ValueError where `data` is no such shard.
    """
    grid = _grid(shape)
    lead, (down, across) = grid[:-2], grid[-2:]  # chunks have one place along the leading axes
    index = _index(grid, data)
    for at in np.ndindex(*lead):
        rows = [[_chunk(shape, data, index[(*at, y, x)]) for x in range(across)]
                for y in range(down)]  # fmt: skip
        yield rows[0][0] if (down, across) == (1, 1) else np.block(rows)


def decode(shape: ArrayShape, data: bytes) -> NDArray[Any]:
    """All pixels of a shard, in its shape; the inverse of `encode`."""
    out = np.empty(shape.shard, dtype=shape.dtype)
    for target, plane in zip(out.reshape(-1, *shape.shard[-2:]), planes(shape, data), strict=True):
        target[...] = plane
    return out


def _grid(shape: ArrayShape) -> tuple[int, ...]:
    """How many chunks a shard has along each axis."""
    return tuple(n // size for n, size in zip(shape.shard, shape.chunk, strict=True))


def _index(grid: tuple[int, ...], data: bytes) -> NDArray[np.uint64]:
    size = 16 * math.prod(grid)
    index = data[-size - _CRC : -_CRC]
    if len(index) != size or google_crc32c.value(index).to_bytes(_CRC, "little") != data[-_CRC:]:
        raise ValueError("its index is damaged")
    return np.frombuffer(index, dtype="<u8").reshape(*grid, 2)


def _chunk(shape: ArrayShape, data: bytes, where: NDArray[np.uint64]) -> NDArray[Any]:
    """One chunk, (Y, X)."""
    place, length = (int(value) for value in where)
    sides, dtype = shape.chunk[-2:], np.dtype(shape.dtype).newbyteorder("<")
    if (place, length) == (_ABSENT, _ABSENT):
        return np.zeros(sides, dtype=shape.dtype)
    if place + length > len(data):
        raise ValueError("a chunk ends beyond its end")
    pixels = np.frombuffer(Zstd().decode(memoryview(data)[place : place + length]), dtype=dtype)
    if pixels.size != math.prod(sides):
        raise ValueError("a chunk is of another size")
    return pixels.reshape(sides).astype(shape.dtype, copy=False)


@lru_cache
def _morton(grid: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Places of chunks in the order of their Morton codes, as Zarr has it.

    Bits of the places alternate, the lowest first, from the first axis on; an axis that needs no
    further bit takes no part.
    """
    bits = [(n - 1).bit_length() for n in grid]

    def code(at: tuple[int, ...]) -> int:
        value = place = 0
        for bit in range(max(bits)):
            for i, n in zip(at, bits, strict=True):
                if bit < n:
                    value |= (i >> bit & 1) << place
                    place += 1
        return value

    return tuple(sorted(itertools.product(*map(range, grid)), key=code))
