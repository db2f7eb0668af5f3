"""Shards as Zarr writes and reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zarr.core.buffer import Buffer

from engine.geometry.arrays import ArrayShape
from engine.store import ome_zarr, sharding


def by_zarr(shape: ArrayShape, shard: np.ndarray) -> bytes:
    objects: dict[str, Buffer] = {}
    ome_zarr._new_array(objects, shape, shape.shard)[...] = shard
    return objects[ome_zarr._first_key(shape)].to_bytes()


@st.composite
def shapes(draw: st.DrawFn) -> ArrayShape:
    axes = draw(st.sampled_from(["YX", "TYX", "TZYX", "TCZYX"]))
    grid = [draw(st.integers(1, 5)) for _ in axes]
    sides = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    chunk = (*(1 for _ in axes[:-2]), *sides)
    shard = tuple(n * size for n, size in zip(grid, chunk, strict=True))
    dtype = draw(st.sampled_from(["uint8", "uint32", "uint64"]))
    return ArrayShape(axes, shard, dtype, chunk, shard)


@given(shapes(), st.sampled_from(["uint8", "uint16", "int16", "uint32", "uint64", "float32"]))
def test_metadata_are_those_of_zarr(shape: ArrayShape, dtype: str) -> None:
    shape = replace(shape, dtype=dtype)
    objects: dict[str, Buffer] = {}
    ome_zarr._new_array(objects, shape, shape.shape)
    assert ome_zarr.array_metadata(shape) == objects["zarr.json"].to_bytes()


@given(shapes(), st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 250]))
def test_are_those_of_zarr(shape: ArrayShape, seed: int, most: int) -> None:
    shard = np.random.default_rng(seed).integers(0, most, shape.shard).astype(shape.dtype)
    encoded = sharding.encode(shape, shard)
    assert encoded == by_zarr(shape, shard)
    found = sharding.decode(shape, encoded)
    assert found.dtype == shard.dtype and np.array_equal(found, shard)
    planes = [plane for _, plane in ome_zarr.planes_of(shape, encoded)]
    assert np.array_equal(np.stack(planes).reshape(shape.shard), shard)


@given(shapes(), st.integers(0, 2**32 - 1))
def test_planes_and_parts_of_them_in_any_order_make_the_same_shard(
    shape: ArrayShape, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shard = rng.integers(0, 3, shape.shard).astype(shape.dtype)
    encoder, down = sharding.Encoder(shape), shape.chunk[-2]
    places = list(np.ndindex(*shape.shard[:-2]))
    for at in (places[i] for i in rng.permutation(len(places))):
        if rng.random() < 0.2:
            shard[at] = 0  # and is never put
            continue
        y = int(rng.integers(1, shape.shard[-2] // down + 1)) * down  # where it is cut
        encoder.put(at, shard[at][:y])
        if y < shape.shard[-2]:
            shard[at][-1] = 0  # the lower part is put without its last row
            encoder.put(at, shard[at][y:-1], (y, 0))
    assert encoder.encode() == sharding.encode(shape, shard)


SHAPE = ArrayShape("TYX", (2, 8, 8), "uint32", (1, 4, 8), (2, 8, 8))


def cut(data: bytes) -> bytes:
    return data[:-7]


def index_changed(data: bytes) -> bytes:
    return data[:-10] + bytes([data[-10] ^ 1]) + data[-9:]


def chunk_changed(data: bytes) -> bytes:
    return b"\0" * 8 + data[8:]


def test_a_part_begins_with_a_chunk() -> None:
    with pytest.raises(ValueError, match=r"no chunk begins at \(2, 0\)"):
        sharding.Encoder(SHAPE).put((0,), np.zeros((4, 8), np.uint32), (2, 0))


@pytest.mark.parametrize("damage", [cut, index_changed, chunk_changed, lambda data: b""])
def test_damage_is_a_value_error(damage: Any) -> None:
    data = sharding.encode(SHAPE, np.arange(128, dtype=np.uint32).reshape(SHAPE.shard))
    with pytest.raises(ValueError, match="not a shard of the array"):
        ome_zarr.decode_shard(SHAPE, damage(data))
    with pytest.raises(ValueError, match="not a shard of the array"):
        list(ome_zarr.planes_of(SHAPE, damage(data)))


def test_a_shard_of_another_array_is_refused() -> None:
    other = ArrayShape("TYX", (2, 8, 8), "uint32", (1, 8, 8), (2, 8, 8))
    data = sharding.encode(SHAPE, np.zeros(SHAPE.shard, np.uint32))
    with pytest.raises(ValueError, match="not a shard"):
        ome_zarr.decode_shard(other, data)
    wide = ArrayShape("TYX", (2, 8, 8), "uint64", (1, 4, 8), (2, 8, 8))
    with pytest.raises(ValueError, match="another size"):
        ome_zarr.decode_shard(wide, data)
