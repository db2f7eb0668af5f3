"""Chunks that are not there, in stores that zarr-python wrote."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from engine.stacks.open import open_stack
from tests.stacks.frames import ramp

SHAPE = (4, 50, 70)  # C Y X, chunks of (2, 16, 32): 2 x 4 x 3 of them
CHUNK = (2, 16, 32)


def _write(path: Path, pixels: np.ndarray | None = None, **options: Any) -> zarr.Array[Any]:
    array = zarr.create_array(
        str(path),
        shape=SHAPE,
        dtype="uint16",
        **{"chunks": CHUNK, "zarr_format": 3, **options},
    )
    if pixels is not None:
        array[...] = pixels
    return array


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"zarr_format": 2}, "{}.{}.{}"),
        (
            {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
            "{}/{}/{}",
        ),
        ({}, "c/{}/{}/{}"),
        ({"chunk_key_encoding": {"name": "default", "separator": "."}}, "c.{}.{}.{}"),
        ({"chunk_key_encoding": {"name": "v2", "separator": "."}}, "{}.{}.{}"),
        ({"chunk_key_encoding": {"name": "v2", "separator": "/"}}, "{}/{}/{}"),
    ],
    ids=str,
)
def test_lost_chunk_files(tmp_path: Path, options: dict[str, Any], key: str) -> None:
    _write(tmp_path / "a", ramp(SHAPE) + 1, **options)
    with open_stack(str(tmp_path / "a"), "CYX") as stack:
        assert stack.missing_chunks(0, 0, range(4)) == 0
        for at in ((0, 0, 0), (1, 3, 2), (0, 1, 1)):
            (tmp_path / "a" / key.format(*at)).unlink()
        assert stack.missing_chunks(0, 0, range(4)) == 3
        assert stack.missing_chunks(0, 0, [0]) == stack.missing_chunks(0, 0, [1]) == 2
        assert stack.missing_chunks(0, 0, [3, 2]) == 1
        assert stack.missing_chunks(0, 0, [0, 3]) == 3
        assert stack.missing_chunks(0, 0, [0], slice(0, 16)) == 1
        assert stack.missing_chunks(0, 0, [0], slice(0, 17)) == 2
        assert stack.missing_chunks(0, 0, [0], slice(0, 17), slice(0, 32)) == 1
        assert stack.missing_chunks(0, 0, [0], slice(16, 50), slice(64, 70)) == 0
        assert stack.missing_chunks(0, 0, [0], slice(5, 5)) == 0


def test_missing_chunks_by_frame(tmp_path: Path) -> None:
    array = zarr.create_array(
        str(tmp_path / "a"), shape=(5, 3, 20, 30), dtype="uint16", chunks=(1, 1, 20, 30)
    )
    array[...] = ramp((5, 3, 20, 30)) + 1
    shutil.rmtree(tmp_path / "a/c/3/1")
    with open_stack(str(tmp_path / "a"), "TZYX") as stack:
        found = {(t, z): stack.missing_chunks(t, z, [0]) for t in range(5) for z in range(3)}
    assert [at for at, n in found.items() if n] == [(3, 1)]


@pytest.mark.parametrize("location", ["start", "end"])
@given(st.data())
def test_chunks_within_shards(tmp_path: Path, location: str, data: st.DataObject) -> None:
    """What was written is known; pixels of other chunks were never written."""
    shutil.rmtree(tmp_path / "a", ignore_errors=True)
    array = _write(
        tmp_path / "a",
        shards={"shape": (4, 32, 64), "index_location": location},  # 1 x 2 x 2 shards
    )
    places = list(product(range(2), range(4), range(3)))
    written = data.draw(st.sets(st.sampled_from(places)))
    for at in written:
        array[tuple(slice(i * n, i * n + n) for i, n in zip(at, CHUNK, strict=True))] = 7
    lows, highs = zip(
        *(sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in SHAPE[1:]),
        strict=True,
    )
    channels = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))
    touched = {
        (c // 2, y // 16, x // 32)
        for c in channels
        for y in range(lows[0], highs[0])
        for x in range(lows[1], highs[1])
    }
    with open_stack(str(tmp_path / "a"), "CYX") as stack:
        assert stack.holds_any() == bool(written)
        assert stack.n_chunks(0, 0, channels) == len({c // 2 for c in channels}) * 4 * 3
        windows = [slice(a, b) for a, b in zip(lows, highs, strict=True)]
        for _ in range(2):  # the second time from what was kept
            assert stack.missing_chunks(0, 0, channels, *windows) == len(touched - written)


def test_a_lost_shard_counts_as_its_chunks(tmp_path: Path) -> None:
    _write(tmp_path / "a", ramp(SHAPE) + 1, shards=(4, 32, 64))
    (tmp_path / "a/c/0/1/1").unlink()  # 2 x 2 x 1 chunks lie within the array
    with open_stack(str(tmp_path / "a"), "CYX") as stack:
        assert stack.missing_chunks(0, 0, range(4)) == 4
        assert stack.missing_chunks(0, 0, [1]) == 2
        assert stack.missing_chunks(0, 0, [1], slice(0, 32)) == 0


@pytest.mark.parametrize(
    "index_codecs",
    [[BytesCodec()], [BytesCodec(endian="big"), Crc32cCodec()]],
    ids=["no checksum", "big-endian"],
)
def test_shards_with_another_index_count_whole(tmp_path: Path, index_codecs: Any) -> None:
    sharding = ShardingCodec(chunk_shape=CHUNK, index_codecs=index_codecs)
    array = _write(tmp_path / "a", chunks=(4, 32, 64), serializer=sharding, compressors=None)
    array[:2, :16, :32] = 1
    with open_stack(str(tmp_path / "a"), "CYX") as stack:
        assert stack.missing_chunks(0, 0, range(4)) == 3
        assert stack.missing_chunks(0, 0, range(4), slice(0, 32), slice(0, 64)) == 0


def test_many_shards_are_looked_at_once_and_few_are_kept(tmp_path: Path) -> None:
    array = zarr.create_array(
        str(tmp_path / "a"), shape=(64, 512), dtype="uint8", chunks=(8, 8), shards=(16, 16)
    )
    array[...] = 1
    array[40:, :] = 0  # written as background: not stored
    with open_stack(str(tmp_path / "a")) as stack:
        assert stack.missing_chunks(0, 0, [0]) == 3 * 64
        assert stack.missing_chunks(0, 0, [0], slice(32, 64), slice(500, 512)) == 3 * 2


def test_other_formats_miss_nothing(tmp_path: Path) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", ramp((20, 30)))
    with open_stack(str(tmp_path / "a.tif")) as stack:
        assert stack.missing_chunks(0, 0, [0], slice(0, 5), slice(0, 5)) == 0
        assert stack.n_chunks(0, 0, [0]) == 0
        assert stack.holds_any()


LAYOUTS = {
    "v2 flat": {"zarr_format": 2},
    "v2 nested": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "v3 nested": {},
    "v3 flat": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "v3 flat, as v2": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    "v3 nested, as v2": {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "v3 nested shards": {"shards": (4, 32, 64)},
}


def _state(where: Path, separator: str | None) -> None:
    """Have the metadata of an array say another separator; None: say nothing."""
    file = where / ("zarr.json" if (where / "zarr.json").exists() else ".zarray")
    meta = json.loads(file.read_text())
    if "chunk_key_encoding" in meta:
        del meta["chunk_key_encoding"]["configuration"]
        if separator is not None:
            meta["chunk_key_encoding"]["configuration"] = {"separator": separator}
    elif separator is None:
        del meta["dimension_separator"]
    else:
        meta["dimension_separator"] = separator
    file.write_text(json.dumps(meta))


def _separator(where: Path) -> str:
    nested = any(path.is_dir() for path in where.iterdir() if path.name != "c")
    return "/" if nested or (where / "c").exists() else "."


@pytest.mark.parametrize("group", [False, True], ids=["array", "group"])
@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)
def test_chunks_that_lie_elsewhere_than_the_metadata_say(
    tmp_path: Path, options: dict[str, Any], group: bool
) -> None:
    """zarr before 2.8 nested chunks without a word about it: zarr reads such an array as blank."""
    pixels = ramp(SHAPE) + 1
    store = tmp_path / "a.zarr"
    where = store / "0" if group else store
    if group:
        zarr.open_group(str(store), mode="w", zarr_format=options.get("zarr_format", 3))
    _write(where, pixels, **options)
    lies = _separator(where)
    with open_stack(str(store), "CYX") as stack:
        assert stack.info.format == "Zarr"
    _state(where, "." if lies == "/" else "/")
    assert not zarr.open_array(str(where), mode="r")[...].any()
    with open_stack(str(store), "CYX") as stack:
        assert "nested" in stack.info.format if lies == "/" else "one folder" in stack.info.format
        np.testing.assert_array_equal(stack.read(0, 0, range(4)), pixels)
        assert stack.holds_any()
        assert stack.missing_chunks(0, 0, range(4)) == 0
    key = ("c." if where.joinpath("c.0.0.0").exists() else "") + lies.join("000")
    (where / ("c/" + key if (where / "c").exists() else key)).unlink()
    with open_stack(str(store), "CYX") as stack:
        assert stack.missing_chunks(0, 0, range(4)) == (8 if "shards" in options else 1)
    identities = {open_stack(str(store), "CYX").info.identity for _ in range(2)}
    assert len(identities) == 1


def test_a_v2_array_that_does_not_say_its_separator(tmp_path: Path) -> None:
    pixels = ramp(SHAPE) + 1
    _write(tmp_path / "a", pixels, **LAYOUTS["v2 nested"])
    _state(tmp_path / "a", None)
    with open_stack(str(tmp_path / "a"), "CYX") as stack:
        np.testing.assert_array_equal(stack.read(0, 0, range(4)), pixels)
    _write(tmp_path / "b", pixels, **LAYOUTS["v2 flat"])
    _state(tmp_path / "b", None)
    with open_stack(str(tmp_path / "b"), "CYX") as stack:
        assert stack.info.format == "Zarr"
        np.testing.assert_array_equal(stack.read(0, 0, range(4)), pixels)


def test_the_stated_separator_counts_while_one_chunk_lies_so(tmp_path: Path) -> None:
    _write(tmp_path / "a", ramp(SHAPE) + 1, **LAYOUTS["v2 nested"])
    (tmp_path / "a/0.1.1").write_bytes((tmp_path / "a/0/1/1").read_bytes())
    _state(tmp_path / "a", ".")
    with open_stack(str(tmp_path / "a"), "CYX") as stack:
        assert stack.info.format == "Zarr"
        assert stack.missing_chunks(0, 0, range(4)) == 2 * 4 * 3 - 1


@pytest.mark.parametrize("name", ["9.0.0", "0.0", "0.0.0.0", "00.0.0", "x.0.0", "0/0", ".tmp"])
def test_files_that_are_no_chunks(tmp_path: Path, name: str) -> None:
    _write(tmp_path / "a", **LAYOUTS["v2 flat"])
    (tmp_path / "a" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "a" / name).write_bytes(b"x")
    with open_stack(str(tmp_path / "a"), "CYX") as stack:
        assert not stack.holds_any()


def test_a_link_to_a_chunk_that_is_not_there_is_no_chunk(tmp_path: Path) -> None:
    """What git-annex leaves of a file that it has not fetched."""
    _write(tmp_path / "a", **LAYOUTS["v2 flat"])
    (tmp_path / "a/0.0.0").symlink_to(tmp_path / "gone")
    with open_stack(str(tmp_path / "a"), "CYX") as stack:
        assert not stack.holds_any()


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    shape = (20, 20, 20, 20, 20)
    for name in ("a", "b"):
        zarr.create_array(tmp_path / name, shape=shape, chunks=(1,) * 5, dtype="u1")
        (tmp_path / name / "c").mkdir()
    for n in range(20):
        (tmp_path / "a/c" / str(n)).symlink_to(tmp_path / "a/c")
    with open_stack(str(tmp_path / "a"), "TCZYX") as stack:
        assert not stack.holds_any()
    (tmp_path / "far/0/0/0").mkdir(parents=True)
    (tmp_path / "far/0/0/0/7").write_bytes(b"x")
    (tmp_path / "b/c/0").symlink_to(tmp_path / "far")
    with open_stack(str(tmp_path / "b"), "TCZYX") as stack:
        assert stack.holds_any()


def test_shards_whose_index_lists_no_chunk_hold_nothing(tmp_path: Path) -> None:
    _write(tmp_path / "a", ramp(SHAPE) + 1, shards=(4, 32, 64))
    with open_stack(str(tmp_path / "a"), "CYX") as stack:
        assert stack.holds_any()
    for shard in (tmp_path / "a").glob("c/*/*/*"):
        data = shard.read_bytes()
        n = 16 * 2 * 2 * 2
        shard.write_bytes(data[: -n - 4] + b"\xff" * n + data[-4:])
    with open_stack(str(tmp_path / "a"), "CYX") as stack:
        assert not stack.holds_any()
        assert stack.missing_chunks(0, 0, [0]) == stack.n_chunks(0, 0, [0]) == 12
