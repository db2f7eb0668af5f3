"""A Zarr store on disk that looks at chunks before they are unpacked.

A codec unpacks as much as a chunk says, whatever the array can hold: a few kilobytes become
terabytes. What a chunk says is in its first bytes for some codecs; for the others it is unpacked
piece by piece here, without keeping any, where it could become too much.
"""

from __future__ import annotations

import bz2
import lzma
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from zarr.abc.store import ByteRequest, RangeByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

from engine.stacks.zarr.chunks import ShardIndex, absent
from engine.stacks.zarr.metadata import NUMERIC, PACKERS, codecs, plain_name

_SLACK = 8  # codecs of numbers may widen them, at most from 1 byte to 8
_SLACK_BYTES = 1 << 16  # checksums, and chunks of a few bytes
_HARMLESS = 1 << 28  # bytes; what can become no more than this is not looked at twice
_EXPANSION = {"gzip": 1100, "zlib": 1100, "bz2": 2_000_000, "lzma": 50_000}
_STEP = 1 << 20


@dataclass(frozen=True)
class Packing:
    """How a chunk is packed, and what it may become."""

    packer: str | None
    limit: int  # bytes
    inner: Packing | None = None  # of the chunks in a shard
    index: ShardIndex | None = None  # of a shard


def packing(document: dict[str, Any], shape: tuple[int, ...], itemsize: int) -> Packing:
    """What the codecs in an array's (or a shard's) metadata do to a chunk of `shape`."""
    found = codecs(document)
    names = [plain_name(c) for c in found]
    widened = _SLACK if any(name in NUMERIC for name in names) else 1
    limit = math.prod(shape) * itemsize * widened + _SLACK_BYTES
    packer = next((name for name in names if name in PACKERS), None)
    if "sharding_indexed" not in names or packer is not None:
        return Packing(packer, limit)
    settings = found[names.index("sharding_indexed")]["configuration"]
    chunk = tuple(settings["chunk_shape"])
    by_name = {plain_name(c): c.get("configuration") or {} for c in settings["index_codecs"]}
    index = ShardIndex(
        tuple(n // max(c, 1) for n, c in zip(shape, chunk, strict=True)),
        "<u8" if by_name["bytes"].get("endian", "little") == "little" else ">u8",
        4 if "crc32c" in by_name else 0,
        settings.get("index_location", "end") == "start",
    )
    inner = packing({"codecs": settings["codecs"]}, chunk, itemsize)
    return Packing(None, limit, inner, index)


class CheckedStore(WrapperStore[LocalStore]):
    """Reads the chunks of one array, whose metadata were read before."""

    def __init__(self, store: LocalStore, packing: Packing | None = None) -> None:
        super().__init__(store)
        self._packing = packing

    def _with_store(self, store: LocalStore) -> CheckedStore:
        return CheckedStore(store, self._packing)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The bytes at `key`; ValueError where they would become more than a chunk."""
        found = await self._store.get(key, prototype, byte_range)
        if found is None or self._packing is None:
            return found
        packing, index = self._packing, self._packing.index
        if byte_range is None:
            check_chunk(memoryview(found.as_buffer_like()), packing)
        elif isinstance(byte_range, RangeByteRequest) and packing.inner and index:
            is_index = index.is_first and byte_range.end <= index.size
            if not is_index:
                check_chunk(memoryview(found.as_buffer_like()), packing.inner)
        return found


def check_chunk(data: memoryview, packing: Packing) -> None:
    """ValueError where a chunk, or one in a shard, would become more than its limit."""
    if packing.inner is not None and packing.index is not None:
        entries = packing.index.entries(data)
        for offset, length in np.unique(entries[~absent(entries)], axis=0).tolist():
            check_chunk(data[offset : offset + length], packing.inner)
    elif packing.packer is not None:
        size = _CLAIMS[packing.packer](data, packing.limit)
        if size > packing.limit:
            raise ValueError(f"a chunk of {len(data)} bytes claims to hold {size} or more")


def _blosc(data: memoryview, limit: int) -> int:
    return int.from_bytes(data[4:8], "little")


def _lz4(data: memoryview, limit: int) -> int:
    return int.from_bytes(data[:4], "little")


def _zstd(data: memoryview, limit: int) -> int:
    """The sum over all frames; a frame that does not say its size is unpacked into the limit."""
    import imagecodecs

    total = at = 0
    while at < len(data) and total <= limit:
        if int.from_bytes(data[at : at + 4], "little") & 0xFFFFFFF0 == 0x184D2A50:  # skippable
            at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
            continue
        flags = data[at + 4] if at + 4 < len(data) else 0
        single = flags >> 5 & 1
        header = at + 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
        width = (single, 2, 4, 8)[flags >> 6]
        if not width:
            try:
                return len(imagecodecs.zstd_decode(bytes(data), out=limit))
            except imagecodecs.ZstdError:
                return limit + 1
        total += int.from_bytes(data[header : header + width], "little")
        total += 256 if width == 2 else 0
        at = _zstd_frame_end(data, header + width, checksum=flags >> 2 & 1)
    return total


def _zstd_frame_end(data: memoryview, at: int, *, checksum: int) -> int:
    last = 0
    while not last and at + 3 <= len(data):
        block = int.from_bytes(data[at : at + 3], "little")
        last = block & 1
        at += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)  # a run is one byte
    return at + 4 * checksum


def _streamed(make: Callable[[], Any], name: str) -> Callable[[memoryview, int], int]:
    def size(data: memoryview, limit: int) -> int:
        """Unpacked size, counted up to the limit; 0 where it can do no harm."""
        if len(data) * _EXPANSION[name] <= max(limit, _HARMLESS):
            return 0
        total = 0
        rest = bytes(data)
        while rest and total <= limit:
            unpack = make()
            try:
                total += len(unpack.decompress(rest, _STEP))
                while not unpack.eof and total <= limit:
                    more = getattr(unpack, "unconsumed_tail", b"")
                    got = len(unpack.decompress(more, _STEP))
                    if not got and not unpack.eof and not more:
                        return total  # cut off: the codec will say so
                    total += got
            except (OSError, EOFError, zlib.error, lzma.LZMAError):
                return total
            rest = unpack.unused_data
        return total

    return size


_CLAIMS: dict[str, Callable[[memoryview, int], int]] = {
    "blosc": _blosc,
    "lz4": _lz4,
    "zstd": _zstd,
    "gzip": _streamed(lambda: zlib.decompressobj(47), "gzip"),
    "zlib": _streamed(lambda: zlib.decompressobj(47), "zlib"),
    "bz2": _streamed(bz2.BZ2Decompressor, "bz2"),
    "lzma": _streamed(lzma.LZMADecompressor, "lzma"),
}
