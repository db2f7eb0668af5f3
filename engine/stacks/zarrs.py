"""Zarr v2 and v3 arrays, and OME-Zarr 0.4 and 0.5 images (level 0)."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import StackError
from engine.stacks import ngff
from engine.stacks.axes import UNKNOWN, source_axes
from engine.stacks.base import CANONICAL, AxesMap, Stack, StackInfo, read_dtype
from engine.stacks.guard import no_warnings, opening, reading
from engine.stacks.units import MAX_PLANE_BYTES, check_frame, frame_name

if TYPE_CHECKING:
    from zarr import Array

_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
_NAMES = {
    "t": "T",
    "time": "T",
    "c": "C",
    "channel": "C",
    "channels": "C",
    "ch": "C",
    "z": "Z",
    "y": "Y",
    "x": "X",
}


def open_zarr(path: str, axes: str | None = None) -> Stack:
    """Open a Zarr array or a group that holds exactly one image; StackError otherwise."""
    with opening(path), no_warnings():
        where = Path(path)
        meta = _metadata(where)
        if meta["node"] == "array":
            names = _dimension_names(meta)
            image = ngff.Image(where, names, {}, None, ())
            return _array_stack(path, image, axes, "Zarr")
        return _group_stack(path, where, meta, axes)


def _group_stack(path: str, where: Path, meta: dict[str, Any], axes: str | None) -> Stack:
    attributes = ngff.ome(meta["attributes"])
    ngff.refuse_collections(path, where, attributes)
    if "multiscales" in attributes:
        return _array_stack(path, ngff.image(path, where, attributes), axes, "OME-Zarr")
    found = [(child, m) for child, m in _children(where) if _is_image(m)]
    if len(found) == 1:
        child, child_meta = found[0]
        if child_meta["node"] == "array":
            image = ngff.Image(child, _dimension_names(child_meta), {}, None, ())
            return _array_stack(path, image, axes, "Zarr")
        return _group_stack(path, child, child_meta, axes)
    if not found:
        raise StackError(f"{path}: is a Zarr group without an image; give the path of an array")
    names = [str(child) for child, _ in found]
    choice = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    raise StackError(f"{path}: holds {len(names)} images; give one of them: {choice}")


def _is_image(meta: dict[str, Any]) -> bool:
    return meta["node"] == "array" or "multiscales" in ngff.ome(meta["attributes"])


def _children(where: Path) -> list[tuple[Path, dict[str, Any]]]:
    return [
        (child, _metadata(child))
        for child in sorted(where.iterdir())
        if child.is_dir() and any((child / name).is_file() for name in _METADATA)
    ]


def _metadata(where: Path) -> dict[str, Any]:
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
    try:
        document = json.loads(file.read_bytes())
    except ValueError as error:
        raise StackError(f"{file}: is not valid JSON; write the store again") from error
    if not isinstance(document, dict):
        raise StackError(f"{file}: is not Zarr metadata; write the store again")
    return document


def _dimension_names(meta: dict[str, Any]) -> list[str]:
    """Names by dimension, "" where there is none: v3's own, or xarray's convention for v2."""
    names = meta.get("dimension_names") or meta["attributes"].get("_ARRAY_DIMENSIONS")
    if isinstance(names, list) and len(names) == len(meta.get("shape") or ()):
        return [str(n or "") for n in names]
    return []


def _letters(names: Sequence[str], ndim: int) -> str:
    """One letter per dimension; nameless dimensions but the last two are unknown."""
    if len(names) != ndim or not any(names):
        return (UNKNOWN * (ndim - 2) + "YX") if ndim >= 2 else UNKNOWN * ndim
    letters = []
    for name in names:
        letter = _NAMES.get(name.lower(), UNKNOWN)
        letters.append(letter if letter in CANONICAL else UNKNOWN)
    return "".join(letters)


def _array_stack(path: str, image: ngff.Image, axes: str | None, format_: str) -> Stack:
    import zarr

    where = image.array
    meta = _metadata(where)
    if meta["node"] != "array":
        raise StackError(f"{path}: names {where.name} as its pixels, which is no array")
    _refuse_objects(path, meta)
    array = zarr.open_array(str(where), mode="r")
    letters = _letters(image.names, array.ndim)
    chunks = _stored_chunks(meta)
    if array.ndim < 2 or 0 in array.shape or 0 in chunks:
        raise StackError(
            f"{path}: is a Zarr array of shape {array.shape} with chunks of "
            f"{chunks}, which is no image; give another array"
        )
    source = source_axes(letters, array.shape, path, axes, guess_time=False)
    dtype = read_dtype(np.dtype(array.dtype), path)
    canonical, sizes = AxesMap(source).canonical(array.shape)
    plane = math.prod(n for a, n in zip(canonical, sizes, strict=True) if a in "CYX")
    if plane * np.dtype(array.dtype).itemsize > MAX_PLANE_BYTES:
        raise StackError(f"{path}: claims frames of {plane} pixels; its metadata is damaged")
    named = len(image.channel_names) == (sizes[canonical.index("C")] if "C" in canonical else 1)
    info = StackInfo(
        path=path,
        format=format_,
        axes=canonical,
        shape=sizes,
        dtype=dtype,
        channel_names=image.channel_names if named else (),
        pixel_size_um={a: s for a, s in image.pixel_size_um.items() if a in canonical},
        time_step_s=image.time_step_s if "T" in canonical else None,
        identity=_identity(Path(path), where),
    )
    return _ZarrStack(info, source, array)


def _refuse_objects(path: str, meta: dict[str, Any]) -> None:
    """Object arrays and pickled chunks run code when they are read: never opened."""
    dtype = meta.get("dtype", meta.get("data_type"))
    codecs = json.dumps([meta.get(k) for k in ("filters", "compressor", "codecs")])
    if not isinstance(dtype, str) or "O" in dtype or "pickle" in codecs:
        raise StackError(f"{path}: is a Zarr array of objects, not of numbers; give an image")


def _stored_chunks(meta: dict[str, Any]) -> tuple[Any, ...]:
    """Chunk sizes as stored: since 3.4 zarr takes a 0 for a 1, and reads nothing but background."""
    if meta["zarr_format"] == 2:
        return tuple(meta["chunks"])
    return tuple(meta["chunk_grid"]["configuration"].get("chunk_shape", ()))


def _identity(top: Path, array: Path) -> str:
    """Hash over the store's metadata, and over names, sizes and times of the array's files."""
    digest = hashlib.sha256()
    for name in _METADATA:
        if (top / name).is_file():
            digest.update((top / name).read_bytes())
    for entry in _files(array):
        stat = entry.stat()
        name = os.path.relpath(entry.path, array)  # the same however the path is spelled
        digest.update(f"{name}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _files(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """Every file below `folder`, in an order that is always the same."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir():
            yield from _files(entry.path)
        else:
            yield entry


class _ZarrStack(Stack):
    """Reads regions of a Zarr array; zarr keeps no file open and no chunk in memory."""

    def __init__(self, info: StackInfo, source: str, array: Array[Any]) -> None:
        self.info = info
        self._map = AxesMap(source)
        self._array = array

    def read(self, t: int, z: int, channels: Sequence[int]) -> NDArray[Any]:
        """One (t, z) frame, see `Stack.read`."""
        check_frame(self.info, t, z, channels)
        with reading(self.info.path, frame_name(self.info, t, z)):
            index = list(self._map.index(t, z))
            wanted: Sequence[int] = channels
            if "C" in self._map.source and channels:  # only the chunks of these channels
                low, high = min(channels), max(channels)
                index[self._map.source.index("C")] = slice(low, high + 1)
                wanted = [c - low for c in channels]
            plane = np.asarray(self._array[tuple(index)])
            return self._map.to_frame(plane, wanted, self.info.dtype)
