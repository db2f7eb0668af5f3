"""Zarr v2 and v3 arrays, and OME-Zarr 0.4 and 0.5 images (level 0)."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import StackError
from engine.stacks.axes import source_axes
from engine.stacks.base import AxesMap, Stack, StackInfo, bounds, read_dtype
from engine.stacks.guard import no_warnings, opening, reading, some
from engine.stacks.units import MAX_PLANE_BYTES, check_frame, frame_name
from engine.stacks.zarr import ngff
from engine.stacks.zarr.chunks import StoredArray
from engine.stacks.zarr.metadata import METADATA, Node, check_array, read_node

if TYPE_CHECKING:
    from zarr import Array


def open_zarr(path: str, axes: str | None = None) -> Stack:
    """Open a Zarr array or a group that holds exactly one image; StackError otherwise."""
    with opening(path), no_warnings():
        return _open(path, read_node(Path(path)), axes)


def _open(path: str, node: Node, axes: str | None) -> Stack:
    if node.is_array:
        return _array_stack(path, ngff.Image(node.where, node.names), axes, "Zarr")
    ngff.refuse_collections(path, node)
    if node.is_image:
        return _array_stack(path, ngff.image(path, node), axes, "OME-Zarr")
    found = [child for child in map(read_node, node.children) if child.is_image]
    if len(found) == 1:
        return _open(path, found[0], axes)
    if not found:
        raise StackError(f"{path}: is a Zarr group without an image; give the path of an array")
    choice = some([str(child.where) for child in found], limit=4)
    raise StackError(f"{path}: holds {len(found)} images; give one of them: {choice}")


def open_array(path: str, where: Path) -> StoredArray:
    """An array of numbers; StackError where it is none.

    `path` is what it is called in messages. What is opened is what was checked, and not what a
    file says by now; chunks are looked for where they lie, see `StoredArray.with_actual_separator`.
    """
    from zarr import Array, AsyncArray
    from zarr.storage import LocalStore, StorePath

    from engine.stacks.zarr.guard import CheckedStore, packing

    node = read_node(where)
    if not node.is_array:
        what = "is no array" if where.exists() else "is not there; copy the store again"
        raise StackError(f"{path}: names {where.name} as its pixels, which {what}")
    check_array(path, node)
    known = packing(node.document, tuple(node.chunks), node.itemsize)
    store = StorePath(CheckedStore(LocalStore(where, read_only=True), known))
    document: Any = {**node.document, "attributes": node.attributes}
    array = Array(AsyncArray(document, store))
    # Of a shard with any other index it is not counted which chunks it lacks.
    usual = known.index and known.index.dtype == "<u8" and known.index.checksum
    index = known.index if usual and array.shards else None
    return StoredArray(where, array, index).with_actual_separator()


def _array_stack(path: str, image: ngff.Image, axes: str | None, format_: str) -> Stack:
    where = image.array
    stored = open_array(path, where)
    array = stored.array
    source = source_axes(image.letters(array.ndim), array.shape, path, axes, guess_time=False)
    dtype = read_dtype(np.dtype(array.dtype), path)
    canonical, sizes = AxesMap(source).canonical(array.shape)
    plane = math.prod(n for a, n in zip(canonical, sizes, strict=True) if a in "CYX")
    if plane * np.dtype(array.dtype).itemsize > MAX_PLANE_BYTES:
        raise StackError(f"{path}: claims frames of {plane} pixels; its metadata is damaged")
    n_channels = sizes[canonical.index("C")] if "C" in canonical else 1
    named, unused = len(image.channel_names) == n_channels, image.unused
    if image.channel_names and not named:
        unused += (
            f"its omero metadata names another number of channels ({len(image.channel_names)}) "
            f"than the image has ({n_channels}); the names are not used",
        )
    info = StackInfo(
        path=path,
        format=f"{format_}{stored.note}",
        axes=canonical,
        shape=sizes,
        dtype=dtype,
        channel_names=image.channel_names if named else (),
        pixel_size_um={a: s for a, s in image.pixel_size_um.items() if a in canonical},
        time_step_s=image.time_step_s if "T" in canonical else None,
        unused=unused,
        identity=_identity(Path(path), where),
        **_storage(array, source),
    )
    return _ZarrStack(info, source, stored)


def _storage(array: Array[Any], source: str) -> dict[str, Any]:
    """How pixels are stored, as fields of StackInfo.

    zarr reads several chunks side by side, each held packed and unpacked, and copies them to an
    array of the pixels asked for. Within a shard it does the same once more.
    """
    import zarr

    sizes = dict(zip(source, array.shape, strict=True))
    chunk = dict(zip(source, array.chunks, strict=True))
    itemsize = np.dtype(array.dtype).itemsize
    unpacked = math.prod(array.chunks) * itemsize
    at_once = int(zarr.config.get("async.concurrency"))
    piece = (min(chunk["Y"], sizes["Y"]), min(chunk["X"], sizes["X"]))
    fields: dict[str, Any] = {
        "piece": None if piece == (sizes["Y"], sizes["X"]) else piece,
        "piece_bytes": 2 * unpacked,
        "pieces_at_once": at_once,
        "stored_bytes": itemsize,
        "unit_channels": 0,
    }
    if array.shards is not None:
        inner = zip(array.shards, array.chunks, strict=True)
        fields["piece_bytes"] = 3 * unpacked
        fields["pieces_at_once"] = at_once * math.prod(s // c for s, c in inner)
    return fields


def _identity(top: Path, array: Path) -> str:
    """Hash over the store's metadata, and over names, sizes and times of the array's files."""
    digest = hashlib.sha256()
    for name in METADATA:
        if (top / name).is_file():
            digest.update((top / name).read_bytes())
    for entry in _files(array):
        try:
            stat = entry.stat()
        except OSError:  # a link to nothing
            stat = entry.stat(follow_symlinks=False)
        name = os.path.relpath(entry.path, array)  # the same however the path is spelled
        told = f"{name}:{stat.st_size}:{stat.st_mtime_ns}\n"
        digest.update(told.encode("utf-8", "backslashreplace"))  # a name need not be UTF-8
    return digest.hexdigest()[:32]


def _files(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """Every file below `folder`, in an order that is always the same."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):  # links may run in circles
            yield from _files(entry.path)
        else:
            yield entry


class _ZarrStack(Stack):
    """Reads regions of a Zarr array; zarr keeps no file open and no chunk in memory."""

    def __init__(self, info: StackInfo, source: str, stored: StoredArray) -> None:
        super().__init__(info)
        self._map = AxesMap(source)
        self._stored = stored

    def read(self, t: int, z: int, channels: Sequence[int]) -> NDArray[Any]:
        """One (t, z) frame, see `Stack.read`."""
        return self._read(t, z, channels, slice(None), slice(None))

    def read_window(
        self, t: int, z: int, channels: Sequence[int], rows: slice, columns: slice
    ) -> NDArray[Any]:
        """A window of a frame, see `Stack.read_window`."""
        if self.info.piece is None:
            return super().read_window(t, z, channels, rows, columns)
        rows, columns = bounds(rows, self.info.size("Y")), bounds(columns, self.info.size("X"))
        return self._read(t, z, channels, rows, columns)

    def _read(
        self, t: int, z: int, channels: Sequence[int], rows: slice, columns: slice
    ) -> NDArray[Any]:
        check_frame(self.info, t, z, channels)
        with reading(self.info.path, frame_name(self.info, t, z)):
            index: list[Any] = list(self._map.index(t, z, rows, columns))
            wanted, array, is_run = channels, self._stored.array, True
            if "C" in self._map.source and channels:  # only the chunks of these channels
                picked = sorted(set(channels))
                is_run = picked[-1] - picked[0] < len(picked)
                wanted = [picked.index(c) for c in channels]
                along = self._map.source.index("C")
                index[along] = slice(picked[0], picked[-1] + 1) if is_run else picked
            plane = np.asarray(array[tuple(index)] if is_run else array.oindex[tuple(index)])
            return self._map.to_frame(plane, wanted, self.info.dtype)

    def missing_chunks(
        self,
        t: int,
        z: int,
        channels: Sequence[int],
        rows: slice | None = None,
        columns: slice | None = None,
    ) -> int:
        """Chunks and chunks of shards that are not there, see `Stack.missing_chunks`."""
        check_frame(self.info, t, z, channels)
        pixels = self._pixels(t, z, channels, rows, columns)
        with reading(self.info.path, frame_name(self.info, t, z)):
            return self._stored.count_missing(pixels)

    def n_chunks(self, t: int, z: int, channels: Sequence[int]) -> int:
        """Chunks and chunks of shards, see `Stack.n_chunks`."""
        check_frame(self.info, t, z, channels)
        return self._stored.count(self._pixels(t, z, channels))

    def holds_any(self) -> bool:
        """Whether any chunk is there, see `Stack.holds_any`."""
        with opening(self.info.path):
            return self._stored.holds_any()

    def _pixels(
        self,
        t: int,
        z: int,
        channels: Sequence[int],
        rows: slice | None = None,
        columns: slice | None = None,
    ) -> list[Sequence[int]]:
        """Positions along each dimension of the array, ascending."""
        pixels: dict[str, Sequence[int]] = {
            "T": range(t, t + 1),
            "Z": range(z, z + 1),
            "C": sorted(set(channels)),
            "_": range(1),
            "Y": range(self.info.size("Y"))[rows or slice(None)],
            "X": range(self.info.size("X"))[columns or slice(None)],
        }
        return [pixels[a] for a in self._map.source]
