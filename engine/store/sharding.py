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


class Encoder:
    """A shard that is compressed plane by plane, and is 0 where no plane was put."""

    def __init__(self, shape: ArrayShape) -> None:
        self._shape, self._grid = shape, _grid(shape)
        self._codec = Zstd(level=ZSTD_LEVEL)
        self._chunks: dict[tuple[int, ...], bytes] = {}  # by their places

    def put(
        self, at: tuple[int, ...], plane: NDArray[Any], corner: tuple[int, int] = (0, 0)
    ) -> None:
        """Put a plane, (Y, X), or a part of it, at a place along the leading axes.

        `corner` is the part's first pixel in the plane, which a chunk begins with; what it lacks
        of its last chunks is 0.
        """
        down, across = self._shape.chunk[-2:]
        if corner[0] % down or corner[1] % across:
            raise ValueError(f"no chunk begins at {corner}: they have {down} x {across} pixels")
        first_y, first_x = corner[0] // down, corner[1] // across
        for y, x in np.ndindex(-(-plane.shape[0] // down), -(-plane.shape[1] // across)):
            part = plane[y * down : (y + 1) * down, x * across : (x + 1) * across]
            if part.shape != (down, across):
                whole = np.zeros((down, across), part.dtype)  # np.pad takes longer
                whole[: part.shape[0], : part.shape[1]] = part
                part = whole
            self._chunks[*at, first_y + y, first_x + x] = self._encoded(part)

    def encode(self) -> bytes:
        """The object that holds the shard."""
        index = np.empty((*self._grid, 2), dtype="<u8")
        empty, parts, place = b"", [], 0
        for at in _morton(self._grid):
            if at not in self._chunks:
                empty = empty or self._encoded(np.zeros(self._shape.chunk[-2:], np.uint8))
            parts.append(self._chunks.get(at, empty))
            index[at] = place, len(parts[-1])
            place += len(parts[-1])
        parts += [index.tobytes(), google_crc32c.value(index.tobytes()).to_bytes(_CRC, "little")]
        return b"".join(parts)

    def _encoded(self, part: NDArray[Any]) -> bytes:
        dtype = np.dtype(self._shape.dtype).newbyteorder("<")
        encoded: bytes = self._codec.encode(np.ascontiguousarray(part, dtype=dtype))
        return encoded


def encode(shape: ArrayShape, shard: NDArray[Any]) -> bytes:
    """The object that holds a shard's pixels, in any shape of as many."""
    pixels, encoder = shard.reshape(shape.shard), Encoder(shape)
    for at in np.ndindex(*_grid(shape)[:-2]):  # chunks have one place along the leading axes
        encoder.put(at, pixels[at])
    return encoder.encode()


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
