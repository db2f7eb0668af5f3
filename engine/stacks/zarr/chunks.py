"""Which chunks of a Zarr array are stored, asked of the files themselves.

zarr reads a chunk that is missing as the fill value, without an error: a store that has lost
chunks looks black. The files cannot tell a lost chunk from one that was never written because
it holds the fill value alone, so what is counted here is what is absent, whatever the reason.

Keys join the numbers of a chunk by "." (a flat folder) or "/" (nested folders). The metadata say
which, but for stores that did not say it before zarr 2.8, or that were moved by a tool that
nests or flattens; there the files decide, see `as_stored`.

A shard is a file of many chunks with an index, one entry of two numbers for each chunk:

    chunk, chunk, ...  | (offset, length) of every chunk in C order | crc32c      all little-endian
                         both 2^64 - 1: the chunk is absent           4 bytes
"""

from __future__ import annotations

import errno
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.stacks.zarr.metadata import with_separator

_ABSENT = np.uint64(2**64 - 1)
_CRC = 4  # bytes
_KEPT = 16  # indices of shards
_INDEX_CODECS = (
    [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
    [{"name": "bytes"}, {"name": "crc32c"}],
)


@dataclass(frozen=True)
class ChunkGrid:
    """Where the chunks of an array lie."""

    folder: Path
    file_shape: tuple[int, ...]  # pixels of a file: a shard, or a chunk where there are no shards
    prefix: str  # of a chunk's key
    separator: str
    inner: tuple[int, ...] | None  # shape of the chunks in a shard, where its index can be read
    index_first: bool = False  # the index lies at the start of a shard, not at its end

    def file(self, at: Sequence[int]) -> Path:
        """The file of the chunk or shard at this place in the grid."""
        return self.folder / (self.prefix + self.separator.join(map(str, at)))

    def stored(self, shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Places of the chunks or shards of an array of `shape` whose files are there.

        Of places that links make one and the same file, the first.
        """
        counts = [-(-n // size) for n, size in zip(shape, self.file_shape, strict=True)]
        if self.separator == "/":
            yield from _nested(self.folder / self.prefix, counts, (), set())
            return
        for name in _names(self.folder):
            parts = name.removeprefix(self.prefix).split(self.separator)
            at = tuple(n for n in map(_number, parts) if n is not None)
            inside = len(at) == len(parts) == len(counts) and all(
                n < count for n, count in zip(at, counts, strict=True)
            )
            if inside and self.file(at).is_file():
                yield at


def _nested(
    folder: Path, counts: Sequence[int], at: tuple[int, ...], linked: set[tuple[Path, int]]
) -> Iterator[tuple[int, ...]]:
    """Places of the files below nested folders, one level for each dimension.

    `linked` are the folders, and their levels, that links have led to: they may run in circles.
    """
    for name in _names(folder):
        number, path = _number(name), folder / name
        if number is None or number >= counts[len(at)]:
            continue
        if len(at) + 1 == len(counts):
            if path.is_file():
                yield (*at, number)
            continue
        if path.is_symlink():
            place = (Path(os.path.realpath(path)), len(at))
            if place in linked:
                continue
            linked.add(place)
        yield from _nested(path, counts, (*at, number), linked)


def _names(folder: Path) -> Iterator[str]:
    """Names in a folder; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno != errno.ELOOP:  # a link to itself
            raise


def _number(text: str) -> int | None:
    """The number in a chunk's key, None for text that is no part of one."""
    plain = text.isascii() and text.isdecimal() and (text == "0" or text[0] != "0")
    return int(text) if plain else None


def as_stored(folder: Path, meta: dict[str, Any]) -> dict[str, Any]:
    """An array's metadata, with the separator that its chunks' files have.

    The other separator is taken where no chunk lies under the stated one, and some under the
    other; all else is left as it is.
    """
    stated, shape = chunk_grid(folder, meta), meta["shape"]
    if stated is None or len(stated.file_shape) != len(shape):
        return meta  # zarr says what is wrong
    if any(True for _ in stated.stored(shape)):
        return meta
    other = with_separator(meta, "." if stated.separator == "/" else "/")
    grid = chunk_grid(folder, other)
    found = grid is not None and any(True for _ in grid.stored(shape))
    return other if found else meta


def chunk_grid(folder: Path, meta: dict[str, Any]) -> ChunkGrid | None:
    """The grid that an array's metadata tells; None for a kind that is not known here."""
    try:
        if meta["zarr_format"] == 2:
            separator = meta.get("dimension_separator") or "."
            return ChunkGrid(folder, tuple(meta["chunks"]), "", separator, None)
        if meta["chunk_grid"]["name"] != "regular":
            return None
        shape = tuple(meta["chunk_grid"]["configuration"]["chunk_shape"])
        encoding = meta["chunk_key_encoding"]
        settings = encoding.get("configuration") or {}
        if encoding["name"] == "v2":
            prefix, separator = "", settings.get("separator", ".")
        elif encoding["name"] == "default":
            separator = settings.get("separator", "/")
            prefix = "c" + separator
        else:
            return None
        inner, first = _inner(meta["codecs"], shape)
    except (KeyError, TypeError, AttributeError):
        return None
    return ChunkGrid(folder, shape, prefix, separator, inner, first)


def _inner(codecs: list[dict[str, Any]], shape: tuple[int, ...]) -> tuple[Any, bool]:
    """Shape of the chunks in a shard, and whether the index comes first; None: not to be read."""
    if len(codecs) != 1 or codecs[0]["name"] != "sharding_indexed":
        return None, False  # no shards, or shards in whose files the index is packed
    settings = codecs[0]["configuration"]
    plain = [{k: v for k, v in c.items() if v not in ({}, None)} for c in settings["index_codecs"]]
    inner = tuple(settings["chunk_shape"])
    whole = len(inner) == len(shape) and all(
        i > 0 and n % i == 0 for n, i in zip(shape, inner, strict=True)
    )
    if plain not in _INDEX_CODECS or not whole:
        return None, False
    return inner, settings.get("index_location", "end") == "start"


def lost_file(grid: ChunkGrid, index: Sequence[int | slice], shape: Sequence[int]) -> Path | None:
    """The first file that `array[index]` needs and that is not there, or None.

    Of an array of `shape` of which every file is written, be it empty or not.
    """
    pixels = (
        range(n)[i] if isinstance(i, slice) else range(i, i + 1)
        for i, n in zip(index, shape, strict=True)
    )
    files = (_steps(p, size) for p, size in zip(pixels, grid.file_shape, strict=True))
    return next((grid.file(at) for at in product(*files) if not grid.file(at).exists()), None)


class StoredChunks:
    """Counts absent chunks; keeps the indices of the last shards looked at."""

    def __init__(self, grid: ChunkGrid) -> None:
        self._grid = grid
        self._lock = threading.Lock()
        self._indices: OrderedDict[tuple[int, ...], NDArray[np.bool_] | None] = OrderedDict()

    def holds_any(self, shape: Sequence[int]) -> bool:
        """Whether any chunk of an array of `shape` is stored."""
        for at in self._grid.stored(shape):
            absent = self._absent(at) if self._grid.inner is not None else np.zeros(1, bool)
            if absent is not None and not (absent.size and absent.all()):
                return True
        return False

    def count(self, pixels: Sequence[Sequence[int]]) -> int:
        """How many chunks these pixels take, absent or not; `pixels` as for `count_missing`."""
        sizes = self._grid.inner or self._grid.file_shape
        return math.prod(len(_steps(p, size)) for p, size in zip(pixels, sizes, strict=True))

    def count_missing(self, pixels: Sequence[Sequence[int]]) -> int:
        """How many chunks with these pixels are absent.

        `pixels` are the wanted positions along each dimension, ascending. A shard that is missing
        counts as all its chunks that hold some of them.
        """
        grid = self._grid
        files = [_steps(p, size) for p, size in zip(pixels, grid.file_shape, strict=True)]
        missing = 0
        for at in product(*files):
            if grid.inner is None:
                missing += not grid.file(at).exists()
                continue
            # Chunks inside the shard, along each dimension.
            chunks = [
                [c - i * (n // size) for c in _steps(p, size) if c // (n // size) == i]
                for i, p, n, size in zip(at, pixels, grid.file_shape, grid.inner, strict=True)
            ]
            absent = self._absent(at)
            if absent is None:
                missing += math.prod(len(c) for c in chunks)
            elif absent.size:
                missing += int(np.count_nonzero(absent[np.ix_(*chunks)]))
        return missing

    def _absent(self, at: tuple[int, ...]) -> NDArray[np.bool_] | None:
        """Which chunks of a shard are absent, None for all; empty where the index is damaged."""
        with self._lock:
            if at in self._indices:
                self._indices.move_to_end(at)
                return self._indices[at]
        absent = self._read_index(self._grid.file(at))
        if absent is not None:  # a shard that is missing is asked for again
            with self._lock:
                self._indices[at] = absent
                if len(self._indices) > _KEPT:
                    self._indices.popitem(last=False)
        return absent

    def _read_index(self, file: Path) -> NDArray[np.bool_] | None:
        inner = self._grid.inner or ()
        counts = [n // i for n, i in zip(self._grid.file_shape, inner, strict=True)]
        size = 16 * math.prod(counts)
        try:
            if file.stat().st_size < size + _CRC:  # reading its pixels will say so
                return np.empty([0] * len(counts), bool)
            with file.open("rb", buffering=0) as stream:
                if not self._grid.index_first:
                    stream.seek(-(size + _CRC), 2)
                data = stream.read(size)
        except FileNotFoundError:
            return None
        if len(data) < size:
            return np.empty([0] * len(counts), bool)
        entries = np.frombuffer(data, "<u8").reshape(*counts, 2)
        return np.asarray((entries == _ABSENT).all(axis=-1))


def _steps(positions: Sequence[int], size: int) -> Sequence[int]:
    """Numbers of the chunks of `size` that hold these positions, each once, ascending."""
    if isinstance(positions, range) and positions.step == 1:
        if not positions:
            return range(0)
        return range(positions.start // size, (positions.stop - 1) // size + 1)
    return sorted({p // size for p in positions})
