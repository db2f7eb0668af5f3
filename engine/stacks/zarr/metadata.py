"""Zarr metadata, v2 and v3: read, and refused where it asks for what no image needs.

What zarr itself would run is decided by names in these documents: object arrays and pickled
chunks run code when they are read, so only codecs that turn numbers into numbers are let through.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from engine.errors import StackError

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


def metadata(where: Path) -> dict[str, Any]:
    """{"node": "array" or "group", "attributes": ..., **the document}; v2 and v3 alike."""
    if (where / "zarr.json").is_file():
        document = _document(where / "zarr.json")
        node = document.get("node_type")
        attributes = document.get("attributes") or {}
    else:
        node = "array" if (where / ".zarray").is_file() else "group"
        document = _document(where / ".zarray") if node == "array" else {}
        attributes = _document(where / ".zattrs") if (where / ".zattrs").is_file() else {}
    if node not in ("array", "group") or not isinstance(attributes, dict):
        raise StackError(f"{where}: has Zarr metadata that says neither array nor group")
    return {**document, "node": node, "attributes": attributes}


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


def with_separator(meta: dict[str, Any], separator: str) -> dict[str, Any]:
    """The metadata of an array whose keys join the numbers of a chunk by `separator`."""
    if meta.get("zarr_format") == 2:
        return {**meta, "dimension_separator": separator}
    configuration = {"separator": separator}
    encoding = {**meta["chunk_key_encoding"], "configuration": configuration}
    return {**meta, "chunk_key_encoding": encoding}


def as_document(meta: dict[str, Any]) -> bytes:
    """The file's content for what `metadata` gave: without what that added."""
    added = ("node", "attributes") if meta.get("zarr_format") == 2 else ("node",)
    return json.dumps({k: v for k, v in meta.items() if k not in added}).encode()


def children(where: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The arrays and groups in a group, but for links that lead out of it."""
    return [(child, metadata(child)) for child in child_folders(where)]


def child_folders(where: Path) -> list[Path]:
    """Folders of the arrays and groups in a group, in order of their names; as `children`."""
    top = where.resolve()
    return [
        child
        for child in sorted(where.iterdir())
        if child.is_dir()
        and child.resolve().is_relative_to(top)
        and any((child / name).is_file() for name in METADATA)
    ]


def dimension_names(meta: dict[str, Any]) -> list[str]:
    """Names by dimension, "" where there is none: v3's own, or xarray's convention for v2."""
    names = meta.get("dimension_names") or meta["attributes"].get("_ARRAY_DIMENSIONS")
    shape = meta.get("shape")
    if isinstance(names, list) and isinstance(shape, list) and len(names) == len(shape):
        return [str(n or "") for n in names]
    return []


def check_array(path: str, meta: dict[str, Any]) -> None:
    """StackError for an array that is no plain array of numbers of a possible size."""
    dtype = meta.get("dtype", meta.get("data_type"))
    if not isinstance(dtype, str) or "O" in dtype:
        raise StackError(f"{path}: is a Zarr array of objects, not of numbers; give an image")
    if "data_type" not in meta and not re.fullmatch(r"[<>|=]?[biufc][0-9]+", dtype):
        raise StackError(f"{path}: pixels of type {_short(dtype)} cannot be segmented")
    _check_codecs(path, codecs(meta))
    shape, chunks = meta.get("shape"), stored_chunks(meta)
    for numbers in (shape, chunks):
        if (
            not isinstance(numbers, list)
            or len(numbers) > _MAX_DIMENSIONS
            or not all(type(n) is int and 0 <= n < _MAX_SIDE for n in numbers)
        ):
            raise StackError(
                f"{path}: claims a shape of {_short(shape)} in chunks of {_short(chunks)}, which "
                "no array has; its metadata is damaged"
            )
    claimed = math.prod(chunks) * item_bytes(meta)
    if claimed > _MAX_CHUNK:
        raise StackError(
            f"{path}: claims chunks of {claimed} bytes, and {_MAX_CHUNK} are the most that is "
            "read; write it again in smaller chunks"
        )


def item_bytes(meta: dict[str, Any]) -> int:
    """Bytes of a value, out of names like "<u2" (v2) and "uint16" (v3); 1 at the least."""
    found = re.findall(r"[0-9]+$", str(meta.get("dtype", meta.get("data_type"))))
    number = int(found[0][:9]) if found else 1
    return max(-(-number // 8) if "data_type" in meta else number, 1)


def codecs(meta: dict[str, Any]) -> list[dict[str, Any]]:
    """Every codec of an array as {"name": ..., "configuration": ...}, in order of writing.

    Raises ValueError where they are not written like that.
    """
    if meta.get("zarr_format") == 2:
        found = [*(meta.get("filters") or []), meta.get("compressor")]
        return [{"name": c["id"], "configuration": c} for c in found if c is not None]
    return [c if isinstance(c, dict) else {"name": c} for c in meta.get("codecs") or []]


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
                f"{path}: is packed with {_short(name)}, which is not read here; write it again "
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


def stored_chunks(meta: dict[str, Any]) -> Any:
    """Chunk sizes as stored: since 3.4 zarr takes a 0 for a 1, and reads nothing but background."""
    if meta.get("zarr_format") == 2:
        return meta.get("chunks")
    return meta["chunk_grid"]["configuration"].get("chunk_shape", [])


def _short(value: Any) -> str:
    text = "".join(c if c.isprintable() else "?" for c in str(value))
    return text if len(text) <= 60 else text[:57] + "..."
