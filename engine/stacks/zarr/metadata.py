"""Zarr metadata, v2 and v3: read, and refused where it asks for what no image needs.

What zarr itself would run is decided by names in these documents: object arrays and pickled
chunks run code when they are read, so only codecs that turn numbers into numbers are let through.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import StackError
from engine.stacks.guard import brief

METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
_MAX_DOCUMENT = 64 << 20  # bytes; consolidated metadata of a large plate has some ten million
_MAX_CHUNK = 1 << 32  # bytes, unpacked; most codecs end at half of it
_MAX_SIDE = 1 << 53  # px
_MAX_DIMENSIONS = 32

PACKERS = ("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd")
_SAME_SIZE = ("adler32", "crc32", "crc32c", "fletcher32", "jenkins_lookup3", "shuffle")
NUMERIC = ("astype", "bitround", "delta", "fixedscaleoffset", "packbits", "quantize")
_OTHER = ("bytes", "transpose", "sharding_indexed", "zfpy", "pcodec")
_CODECS = {*PACKERS, *_SAME_SIZE, *NUMERIC, *_OTHER}
_OBJECTS = ("pickle", "json2", "msgpack2", "json", "msgpack", "vlen", "categorize", "string")


@dataclass(frozen=True)
class Node:
    """An array or a group as its metadata describe it: any JSON, until `check_array` passed it."""

    where: Path
    is_array: bool
    document: dict[str, Any]  # the content of zarr.json or .zarray; empty of a v2 group
    attributes: dict[str, Any]

    @property
    def ome(self) -> dict[str, Any]:
        """The OME part of the attributes: under "ome" since 0.5, at the top before."""
        inner = self.attributes.get("ome")
        return inner if isinstance(inner, dict) else self.attributes

    @property
    def is_image(self) -> bool:
        """Whether this is an array or a multiscale image."""
        return self.is_array or "multiscales" in self.ome

    @property
    def names(self) -> list[str]:
        """Names by dimension, "" where there is none: v3's own, or xarray's convention for v2."""
        names = self.document.get("dimension_names") or self.attributes.get("_ARRAY_DIMENSIONS")
        shape = self.document.get("shape")
        if isinstance(names, list) and isinstance(shape, list) and len(names) == len(shape):
            return [str(n or "") for n in names]
        return []

    @property
    def chunks(self) -> Any:
        """Chunk sizes as stored: since 3.4 zarr takes a 0 for a 1, and reads only background."""
        if self.document.get("zarr_format") == 2:
            return self.document.get("chunks")
        return self.document["chunk_grid"]["configuration"].get("chunk_shape", [])

    @property
    def itemsize(self) -> int:
        """Bytes of a value. Raises TypeError where NumPy has no such type."""
        return np.dtype(self.document.get("dtype", self.document.get("data_type"))).itemsize

    @property
    def children(self) -> list[Path]:
        """Folders of a group's arrays and groups, by name; links that lead out of it are none."""
        top = self.where.resolve()
        return [
            child
            for child in sorted(self.where.iterdir())
            if child.is_dir() and child.resolve().is_relative_to(top) and is_zarr(child)
        ]


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a Zarr array or group."""
    return any((folder / name).is_file() for name in METADATA)


def read_node(where: Path) -> Node:
    """The array or group at `where`, v2 or v3; StackError where its metadata are damaged."""
    if (where / "zarr.json").is_file():
        document = _document(where / "zarr.json")
        kind, attributes = document.get("node_type"), document.get("attributes") or {}
    else:
        kind = "array" if (where / ".zarray").is_file() else "group"
        document = _document(where / ".zarray") if kind == "array" else {}
        attributes = _document(where / ".zattrs") if (where / ".zattrs").is_file() else {}
    if kind not in ("array", "group") or not isinstance(attributes, dict):
        raise StackError(f"{where}: has Zarr metadata that says neither array nor group")
    return Node(where, kind == "array", document, attributes)


def _document(file: Path) -> dict[str, Any]:
    if file.stat().st_size > _MAX_DOCUMENT:
        raise StackError(
            f"{file}: is too large for Zarr metadata ({file.stat().st_size} bytes); "
            "write the store again"
        )
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise StackError(f"{file}: is not valid JSON; write the store again") from error
    if not isinstance(document, dict):
        raise StackError(f"{file}: is not Zarr metadata; write the store again")
    return document


def check_array(path: str, node: Node) -> None:
    """StackError for an array that is no plain array of numbers of a possible size."""
    dtype = node.document.get("dtype", node.document.get("data_type"))
    if not isinstance(dtype, str) or "O" in dtype:
        raise StackError(f"{path}: is a Zarr array of objects, not of numbers; give an image")
    if "data_type" not in node.document and not re.fullmatch(r"[<>|=]?[biufc][0-9]+", dtype):
        raise StackError(f"{path}: pixels of type {brief(dtype)} cannot be segmented")
    _check_codecs(path, codecs(node.document))
    shape, chunks = node.document.get("shape"), node.chunks
    for numbers in (shape, chunks):
        if (
            not isinstance(numbers, list)
            or len(numbers) > _MAX_DIMENSIONS
            or not all(type(n) is int and 0 <= n < _MAX_SIDE for n in numbers)
        ):
            raise StackError(
                f"{path}: claims a shape of {brief(shape)} in chunks of {brief(chunks)}, which "
                "no array has; its metadata is damaged"
            )
    if len(node.document["shape"]) < 2 or 0 in (*node.document["shape"], *chunks):
        raise StackError(
            f"{path}: is a Zarr array of shape {tuple(node.document['shape'])} with chunks of "
            f"{chunks}, which is no image; give another array"
        )
    claimed = math.prod(chunks) * node.itemsize
    if claimed > _MAX_CHUNK:
        raise StackError(
            f"{path}: claims chunks of {claimed} bytes, and {_MAX_CHUNK} are the most that is "
            "read; write it again in smaller chunks"
        )


def codecs(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Every codec of an array or shard as {"name": ..., "configuration": ...}, as they write.

    Raises TypeError or KeyError where they are not written like that.
    """
    if document.get("zarr_format") == 2:
        found = [*(document.get("filters") or []), document.get("compressor")]
        return [{"name": c["id"], "configuration": c} for c in found if c is not None]
    return [c if isinstance(c, dict) else {"name": c} for c in document.get("codecs") or []]


def plain_name(codec: dict[str, Any]) -> str:
    """A codec's name, the same in v2 and v3."""
    return str(codec.get("name")).removeprefix("numcodecs.").removeprefix("imagecodecs_")


def _check_codecs(path: str, found: list[dict[str, Any]]) -> None:
    names = [plain_name(c) for c in found]
    for name, codec in zip(names, found, strict=True):
        if any(word in name for word in _OBJECTS):
            raise StackError(f"{path}: is a Zarr array of objects, not of numbers; give an image")
        if name not in _CODECS:
            raise StackError(
                f"{path}: is packed with {brief(name)}, which is not read here; write it again "
                f"with one of {', '.join(PACKERS)}"
            )
        if name == "sharding_indexed":
            settings = codec.get("configuration") or {}
            _check_codecs(path, codecs({"codecs": settings.get("codecs")}))
            for index in settings.get("index_codecs") or []:
                if plain_name(index) not in ("bytes", "crc32c"):
                    raise StackError(f"{path}: has packed indices of shards; write it again")
    if sum(name in PACKERS for name in names) > 1:
        raise StackError(f"{path}: has chunks that are packed twice; write it again, packed once")
