"""Which chunks of a Zarr array are stored, asked of the files themselves.

zarr reads a chunk that is missing as the fill value, without an error: a store that has lost
chunks looks black. The files cannot tell a lost chunk from one that was never written because
it holds the fill value alone, so what is counted here is what is absent, whatever the reason.

Keys join the numbers of a chunk by "." (a flat folder) or "/" (nested folders). The metadata say
which, but for stores that did not say it before zarr 2.8, or that were moved by a tool that
nests or flattens; there the files decide, see `StoredArray.with_actual_separator`.

A shard is a file of many chunks with an index, one entry of two numbers for each chunk:

    chunk, chunk, ...  | (offset, length) of every chunk in C order | crc32c
                         offset 2^64 - 1: the chunk is absent         4 bytes
"""

from __future__ import annotations

import errno
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from operator import lt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from zarr import Array

_ABSENT = np.uint64(2**64 - 1)
_KEPT = 16  # indices of shards
_NUMBER = "(0|[1-9][0-9]*)"  # in a chunk's key


@dataclass(frozen=True)
class ShardIndex:
    """How the index of a shard is written, and where in its file."""

    counts: tuple[int, ...]  # chunks of a shard along each dimension
    dtype: str = "<u8"
    checksum: int = 4  # bytes behind the numbers
    is_first: bool = False  # it lies at the start of the shard, not at its end

    @property
    def size(self) -> int:
        """Bytes of the index and its checksum."""
        return 16 * math.prod(self.counts) + self.checksum

    def entries(self, shard: bytes | memoryview) -> NDArray[np.uint64]:
        """Offset and length of every chunk, (*counts, 2), out of a shard or the index alone.

        Raises ValueError where the shard is shorter than its index.
        """
        if len(shard) < self.size:
            raise ValueError("a shard is too short for its index")
        start = 0 if self.is_first else len(shard) - self.size
        numbers = np.frombuffer(shard, self.dtype, 2 * math.prod(self.counts), start)
        return numbers.reshape(*self.counts, 2)


def absent(entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which chunks of a shard are not in it and read as the fill value, by `ShardIndex.entries`."""
    return np.asarray(entries[..., 0] == _ABSENT)


class StoredArray:
    """An open Zarr array of at least two dimensions, and the files that its chunks are in."""

    def __init__(
        self, folder: Path, array: Array[Any], index: ShardIndex | None, note: str = ""
    ) -> None:
        """`index` is that of a shard; None where chunks are files, or shards count as a whole."""
        self.folder = folder
        self.array = array
        self.note = note  # where chunks lie elsewhere than the metadata say: how
        self._index = index
        self._file_shape = array.shards or array.chunks
        key = array.metadata.encode_chunk_key((0,) * array.ndim)  # "0.0", "c/0/0", ...
        self._prefix, self._separator = key[: 1 - 2 * array.ndim], key[-2]
        self._absent = lru_cache(_KEPT)(self._read_absent)  # of the last shards looked at

    def file(self, at: Sequence[int]) -> Path:
        """The file of the chunk or shard at this place in the grid."""
        return self.folder / self.array.metadata.encode_chunk_key(tuple(at))

    def files(self) -> Iterator[tuple[int, ...]]:
        """Places of the chunks or shards whose files are there.

        Of places that links make one and the same file, the first.
        """
        counts = [-(-n // size) for n, size in zip(self.array.shape, self._file_shape, strict=True)]
        if self._separator == "/":
            yield from _nested(self.folder / self._prefix, counts, (), set())
            return
        pattern = re.compile(re.escape(self._prefix) + r"\.".join([_NUMBER] * len(counts)))
        for match in filter(None, map(pattern.fullmatch, _names(self.folder))):
            at = tuple(map(int, match.groups()))
            if all(map(lt, at, counts)) and self.file(at).is_file():
                yield at

    @property
    def has_files(self) -> bool:
        """Whether any chunk or shard has a file; a shard may hold no chunk."""
        return any(True for _ in self.files())

    def with_actual_separator(self) -> StoredArray:
        """This array, or the same with the other separator where only that leads to any file."""
        if self.has_files:
            return self
        from zarr import Array, AsyncArray

        known: Any = self.array.metadata
        separator: Any = "." if self._separator == "/" else "/"
        other = (
            replace(known, dimension_separator=separator)
            if known.zarr_format == 2
            else replace(
                known,
                chunk_key_encoding=replace(known.chunk_key_encoding, separator=separator),
            )
        )
        array = Array(AsyncArray(other, self.array.store_path))
        note = f", its chunks in {'nested folders' if separator == '/' else 'one folder'}"
        turned = StoredArray(self.folder, array, self._index, note)
        return turned if turned.has_files else self

    def lost_file(self, index: Sequence[int | slice]) -> Path | None:
        """The first file that `array[index]` needs and that is not there, or None.

        Of an array of which every file is written, be it empty or not.
        """
        pixels = (
            range(n)[i] if isinstance(i, slice) else range(i, i + 1)
            for i, n in zip(index, self.array.shape, strict=True)
        )
        files = product(*map(_steps, pixels, self._file_shape))
        return next((self.file(at) for at in files if not self.file(at).exists()), None)

    def holds_any(self) -> bool:
        """Whether any chunk is stored."""
        if self._index is None:
            return self.has_files
        for at in self.files():
            missing = self._missing(at)
            if missing is not None and not (missing.size and missing.all()):
                return True
        return False

    def count(self, pixels: Sequence[Sequence[int]]) -> int:
        """How many chunks these pixels take, absent or not; `pixels` as for `count_missing`."""
        sizes = self.array.chunks if self._index else self._file_shape
        return math.prod(map(len, map(_steps, pixels, sizes)))

    def count_missing(self, pixels: Sequence[Sequence[int]]) -> int:
        """How many chunks with these pixels are absent.

        `pixels` are the wanted positions along each dimension, ascending. A shard that is missing
        counts as all its chunks that hold some of them.
        """
        files = product(*map(_steps, pixels, self._file_shape))
        if self._index is None:
            return sum(not self.file(at).exists() for at in files)
        counts = self._index.counts
        wanted = list(map(_steps, pixels, self.array.chunks))
        total = 0
        for at in files:
            # Chunks inside the shard, along each dimension.
            chunks = [
                [c - i * n for c in some if c // n == i]
                for i, n, some in zip(at, counts, wanted, strict=True)
            ]
            missing = self._missing(at)
            if missing is None:
                total += math.prod(map(len, chunks))
            elif missing.size:
                total += int(np.count_nonzero(missing[np.ix_(*chunks)]))
        return total

    def _missing(self, at: tuple[int, ...]) -> NDArray[np.bool_] | None:
        """Which chunks of a shard are absent, None for all; empty where the index is damaged."""
        try:
            return self._absent(at)
        except FileNotFoundError:  # which is not kept: such a shard is looked for again
            return None

    def _read_absent(self, at: tuple[int, ...]) -> NDArray[np.bool_]:
        assert self._index is not None
        with self.file(at).open("rb", buffering=0) as stream:
            size = min(self._index.size, os.fstat(stream.fileno()).st_size)
            if not self._index.is_first:
                stream.seek(-size, os.SEEK_END)
            try:
                return absent(self._index.entries(stream.read(size)))
            except ValueError:  # reading its pixels will say so
                return np.empty([0] * len(self._index.counts), bool)


def _nested(
    folder: Path, counts: Sequence[int], at: tuple[int, ...], linked: set[tuple[Path, int]]
) -> Iterator[tuple[int, ...]]:
    """Places of the files below nested folders, one level for each dimension.

    `linked` are the folders, and their levels, that links have led to: they may run in circles.
    """
    for name in _names(folder):
        number, path = int(name) if re.fullmatch(_NUMBER, name) else None, folder / name
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


def _steps(positions: Sequence[int], size: int) -> Sequence[int]:
    """Numbers of the chunks of `size` that hold these positions, each once, ascending."""
    if isinstance(positions, range) and positions.step == 1:
        if not positions:
            return range(0)
        return range(positions.start // size, (positions.stop - 1) // size + 1)
    return sorted({p // size for p in positions})
