"""Stores made to lead elsewhere, to run code, or to take all memory there is."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import pickle
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

from engine.errors import FrameError, StackError
from engine.stacks.open import open_stack
from tests.stacks.frames import check, ramp
from tests.stacks.test_zarrs import ngff, write, write_image


def refused(path: Path, says: str) -> None:
    with pytest.raises(StackError, match=says) as caught:
        open_stack(str(path))
    sentence = str(caught.value)
    assert sentence.startswith(str(path)) and sentence.isprintable() and len(sentence) < 1000


def image_with_path(path: Path, dataset: Any, version: int = 2) -> None:
    group = zarr.open_group(str(path), mode="w", zarr_format=version)  # type: ignore[arg-type]
    attributes = ngff("YX", [1, 1], "0.5" if version == 3 else "0.4")
    inner = attributes.get("ome", attributes)
    inner["multiscales"][0]["datasets"][0]["path"] = dataset
    group.attrs.update(attributes)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    "dataset",
    ["../secret", "s0/../../secret", "ABSOLUTE", "link", "a\n\x1b[2Jb", "a\0b", "x" * 5000],
)
def test_pixels_lie_within_the_store(tmp_path: Path, version: int, dataset: str) -> None:
    write(tmp_path / "secret", ramp((20, 30)), version)
    store = tmp_path / "a.zarr"
    image_with_path(store, str(tmp_path / "secret") if dataset == "ABSOLUTE" else dataset, version)
    write(store / "s0", ramp((20, 30)), version)
    (store / "link").symlink_to(tmp_path / "secret", target_is_directory=True)
    refused(store, "metadata is not valid")


def test_links_within_the_store_and_to_the_store_are_followed(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    image_with_path(store, "link")
    write(store / "real", ramp((20, 30)), 2)
    (store / "link").symlink_to(store / "real", target_is_directory=True)
    check(store, ramp((20, 30)), "YX").close()
    (tmp_path / "b.zarr").symlink_to(store, target_is_directory=True)
    check(tmp_path / "b.zarr", ramp((20, 30)), "YX").close()


def test_a_group_does_not_hold_what_lies_outside(tmp_path: Path) -> None:
    write(tmp_path / "secret", ramp((20, 30)))
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    (tmp_path / "a.zarr" / "x").symlink_to(tmp_path / "secret", target_is_directory=True)
    refused(tmp_path / "a.zarr", "without an image")


@pytest.mark.parametrize(
    "attributes",
    [
        {"plate": {"wells": [{"path": "/etc"}]}},
        {"plate": {"wells": [{"path": "A/1"}, {"path": "../../x"}]}},
        {"plate": {"wells": [{"path": "A/1\n\x1b[31m"}]}},
        {"plate": {"wells": [{}]}},
        {"plate": {"wells": 7}},
        {"plate": {"wells": ["A/1"]}},
        {"well": {"images": [{"path": "../../../x"}]}},
        {"well": {"images": [{"path": "/dev"}, {"path": "1"}]}},
        {"well": {"images": None}},
        {"labels": ["../../x"]},
        {"labels": ["/x"]},
    ],
    ids=str,
)
def test_collections_name_nothing_outside(tmp_path: Path, attributes: dict[str, Any]) -> None:
    group = zarr.open_group(str(tmp_path / "p.zarr"), mode="w", zarr_format=2)
    group.attrs.update(attributes)
    refused(tmp_path / "p.zarr", "metadata is not valid")


def test_links_in_a_circle_do_not_hang(tmp_path: Path) -> None:
    write(tmp_path / "a", ramp((20, 30)))
    for name in ("c/x", "c/y"):  # 2 ** 40 paths lead round
        (tmp_path / "a" / name).symlink_to(tmp_path / "a" / "c", target_is_directory=True)
    (tmp_path / "a" / "dead").symlink_to(tmp_path / "gone")
    check(tmp_path / "a", ramp((20, 30)), "YX").close()


class Marker:
    """Unpickling makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


V2: dict[str, Any] = {
    "zarr_format": 2,
    "shape": [4, 4],
    "chunks": [4, 4],
    "dtype": "<u2",
    "compressor": None,
    "fill_value": 0,
    "filters": None,
    "order": "C",
}
V3: dict[str, Any] = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [4, 4],
    "data_type": "uint16",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 4]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": 0,
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    "attributes": {},
}
LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


def v3_chunks(*sizes: Any) -> dict[str, Any]:
    return {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(sizes)}}}


def sharded(**changes: Any) -> dict[str, Any]:
    settings = {
        "chunk_shape": [2, 2],
        "codecs": [LITTLE],
        "index_codecs": [LITTLE, {"name": "crc32c"}],
        **changes,
    }
    return {"codecs": [{"name": "sharding_indexed", "configuration": settings}]}


def put(path: Path, document: dict[str, Any], chunk: bytes | None = None) -> Path:
    path.mkdir()
    if document["zarr_format"] == 2:
        (path / ".zarray").write_text(json.dumps(document))
        file = path / "0.0"
    else:
        (path / "zarr.json").write_text(json.dumps(document))
        file = path / "c/0/0"
    if chunk is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(chunk)
    return path


@pytest.mark.parametrize(
    "document",
    [
        V2 | {"dtype": "|O", "filters": [{"id": "pickle"}]},
        V2 | {"dtype": "|O", "compressor": {"id": "pickle", "protocol": 5}},
        V2 | {"filters": [{"id": "delta", "dtype": "<u2"}, {"id": "pickle"}]},
        V2 | {"compressor": {"id": "pickle"}},
        V2 | {"dtype": "|O", "filters": [{"id": "vlen-utf8"}]},
        V2 | {"filters": [{"id": "vlen-array", "dtype": "<u2"}]},
        V2 | {"filters": [{"id": "msgpack2"}]},
        V2 | {"filters": [{"id": "json2"}]},
        V2 | {"filters": [{"id": "categorize", "labels": ["a"], "dtype": "|O"}]},
        V3 | {"codecs": [LITTLE, {"name": "numcodecs.pickle", "configuration": {}}]},
        V3 | {"codecs": [{"name": "vlen-utf8"}], "data_type": "string"},
        V3 | {"codecs": ["vlen-bytes"]},
        V3 | sharded(codecs=[LITTLE, {"name": "numcodecs.pickle"}]),
        V3 | {"data_type": {"name": "numpy.object"}},
        V2 | {"dtype": [["a", "|O"]]},
    ],
    ids=str,
)
def test_nothing_is_unpickled(tmp_path: Path, document: dict[str, Any]) -> None:
    marker = tmp_path / "it ran"
    path = put(tmp_path / "a", document, pickle.dumps(Marker(str(marker))))
    refused(path, "array of objects")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (V2 | {"chunks": [2**30, 2**30]}, "claims chunks of"),
        (V2 | {"shape": [2**20, 2**20], "chunks": [2**20, 2**20]}, "claims chunks of"),
        (V3 | v3_chunks(10**7, 10**6), "claims chunks of"),
        (V2 | {"shape": [10**18, 4]}, "damaged"),
        (V2 | {"shape": [10**15, 10**15]}, "damaged"),
        (V2 | {"shape": [10**400, 4]}, "damaged"),
        (V2 | {"shape": [True, 4]}, "damaged"),
        (V2 | {"shape": [4.0, 4]}, "damaged"),
        (V2 | {"shape": "44"}, "damaged"),
        (V2 | {"shape": {"a": 4}, "chunks": None}, "damaged"),
        (V2 | {"chunks": [-4, 4]}, "damaged"),
        (V3 | v3_chunks("4", 4), "damaged"),
        (V3 | {"chunk_grid": None}, "metadata|cannot be opened"),
        (V3 | {"codecs": None}, ""),
        (V3 | {"codecs": 7}, ""),
        (V3 | {"codecs": [LITTLE, {"name": "zstd"}, {"name": "gzip"}]}, "packed twice"),
        (V2 | {"filters": [{"id": "zlib"}], "compressor": {"id": "zstd"}}, "packed twice"),
        (V3 | sharded(index_codecs=[LITTLE, {"name": "gzip"}]), "packed indices"),
        (V3 | sharded(chunk_shape=[0, 2]), ""),
        (V3 | sharded(chunk_shape=[3, 2]), ""),
        (V3 | sharded(chunk_shape=[2]), ""),
        (V3 | sharded(codecs=7), ""),
        (V2 | {"shape": [2] * 500, "chunks": [1] * 500}, ""),
    ],
    ids=lambda value: str(value)[:80],
)
def test_impossible_claims_are_refused(tmp_path: Path, document: dict[str, Any], says: str) -> None:
    path = put(tmp_path / "a", document, b"\0")
    tracemalloc.start()
    try:
        refused(path, says)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '{"zarr_format": 2, "shape": [' + "9" * 10_000 + "]}"],
)
@pytest.mark.parametrize("name", ["zarr.json", ".zarray", ".zattrs"])
def test_hostile_json(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_text(text)
    refused(tmp_path / "a", "JSON")


def test_metadata_of_gigabytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with (tmp_path / "a" / "zarr.json").open("wb") as file:
        file.truncate(5_000_000_000)
    refused(tmp_path / "a", "too large")


BOMB = 300_000_000  # bytes of zeros, where a chunk holds 32 bytes


def _zeros_gzip() -> bytes:
    """A gzip stream of `BOMB` zeros that ends as if it held 32 bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    piece = bytes(10_000_000)
    stream = b"".join(packer.compress(piece) for _ in range(BOMB // len(piece)))
    return stream + packer.flush()[:-4] + struct.pack("<I", 32)


def _zeros_zstd(*, says: bool) -> bytes:
    """One frame of runs of 128 KB each."""
    runs = BOMB >> 17
    header = b"\x28\xb5\x2f\xfd" + (b"\xa0" + struct.pack("<I", runs << 17) if says else b"\0\x38")
    block = lambda last: struct.pack("<I", (1 << 17) << 3 | 1 << 1 | last)[:3] + b"\0"  # noqa: E731
    return header + block(0) * (runs - 1) + block(1)


def _blosc() -> bytes:
    data = bytearray(numcodecs.Blosc().encode(np.zeros(100_000_000, "u1")))
    return bytes(data)


BOMBS: dict[str, tuple[dict[str, Any], Any]] = {
    "gzip": (V2 | {"compressor": {"id": "gzip", "level": 1}}, _zeros_gzip),
    "zlib": (
        V2 | {"compressor": {"id": "zlib", "level": 1}},
        lambda: zlib.compress(bytes(BOMB), 9),
    ),
    "v3 gzip": (
        V3 | {"codecs": [LITTLE, {"name": "gzip", "configuration": {"level": 1}}]},
        _zeros_gzip,
    ),
    "bz2": (
        V2 | {"compressor": {"id": "bz2", "level": 1}},
        lambda: bz2.compress(bytes(BOMB // 2)) * 2,
    ),
    "lzma": (
        V2
        | {"compressor": {"id": "lzma", "format": 1, "check": -1, "preset": None, "filters": None}},
        lambda: lzma.compress(bytes(BOMB // 2)) * 2,
    ),
    "zstd": (
        V2 | {"compressor": {"id": "zstd", "level": 1}},
        lambda: _zeros_zstd(says=True),
    ),
    "v3 zstd without a size": (
        V3
        | {"codecs": [LITTLE, {"name": "zstd", "configuration": {"level": 1, "checksum": False}}]},
        lambda: _zeros_zstd(says=False),
    ),
    "many zstd frames": (
        V2 | {"compressor": {"id": "zstd", "level": 1}},
        lambda: numcodecs.Zstd().encode(bytes(20)) * 10_000,
    ),
    "blosc": (
        V2 | {"compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}},
        _blosc,
    ),
    "lz4": (
        V2 | {"compressor": {"id": "lz4", "acceleration": 1}},
        lambda: struct.pack("<I", 2**31 - 1) + bytes(50),
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_chunks_that_hold_more_than_they_may(tmp_path: Path, name: str) -> None:
    document, make = BOMBS[name]
    path = put(tmp_path / "a", document, make())
    with open_stack(str(path)) as stack:
        tracemalloc.start()
        try:
            with pytest.raises(FrameError, match="claims to hold") as caught:
                stack.read(0, 0, [0])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < 50e6


@pytest.mark.parametrize("whole", [False, True])
def test_a_bomb_within_a_shard(tmp_path: Path, whole: bool) -> None:
    gz = {"name": "gzip", "configuration": {"level": 1}}
    bomb = _zeros_gzip()
    small = gzip.compress(np.arange(4, dtype="<u2").tobytes())
    body = small + bomb
    entries = [(0, len(small)), (len(small), len(bomb)), (0, len(small)), (0, len(small))]
    index = b"".join(struct.pack("<QQ", *e) for e in entries)
    import google_crc32c

    shard = body + index + struct.pack("<I", google_crc32c.value(index))
    path = put(tmp_path / "a", V3 | sharded(codecs=[LITTLE, gz]), shard)
    with open_stack(str(path)) as stack:
        if whole:
            with pytest.raises(FrameError, match="claims to hold"):
                stack.read(0, 0, [0])
            return
        good = stack.read_window(0, 0, [0], slice(2, 4), slice(0, 4))
        np.testing.assert_array_equal(good[0], [[0, 1, 0, 1], [2, 3, 2, 3]])
        with pytest.raises(FrameError, match="claims to hold"):
            stack.read_window(0, 0, [0], slice(0, 2), slice(0, 4))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    "compressor", ["blosc", "zstd", "gzip", "zlib", "bz2", "lzma", "lz4", None], ids=str
)
def test_what_numcodecs_packs_is_read(tmp_path: Path, version: str, compressor: str | None) -> None:
    """Noise, in chunks large enough that streams are counted."""
    pixels = np.random.default_rng(0).integers(0, 60_000, (600, 700), np.uint16)
    codec = numcodecs.get_codec({"id": compressor}) if compressor else None
    options: dict[str, Any] = {"compressors": codec}
    if version == "0.5":
        if compressor in ("zlib", "bz2", "lzma", "lz4"):
            pytest.skip("v3 has no such codec of its own")
        names = {"blosc": "BloscCodec", "zstd": "ZstdCodec", "gzip": "GzipCodec"}
        options["compressors"] = getattr(zarr.codecs, names[compressor])() if compressor else None
    array = zarr.create_array(
        str(tmp_path / "a"),
        shape=pixels.shape,
        dtype="uint16",
        chunks=(600, 700) if version == "0.4" else (300, 350),
        zarr_format=2 if version == "0.4" else 3,
        **options,
    )
    array[...] = pixels
    check(tmp_path / "a", pixels, "YX").close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_images_written_beside_pipes(tmp_path: Path) -> None:
    write_image(tmp_path / "a.zarr", ramp((2, 20, 30)), "TYX", "0.4")
    os.mkfifo(tmp_path / "a.zarr" / "pipe")
    check(tmp_path / "a.zarr", ramp((2, 20, 30)), "TYX").close()
