"""The chain of directories in a TIFF file, walked before tifffile follows it.

tifffile stops at a broken link with a log message, and may follow a circle for very long. A
stack that has silently lost its tail is worse than one that is refused, so the chain is walked
here first: every link must lie inside the file and lead to a new directory.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from engine.errors import StackError

_READ_AHEAD = 512  # bytes; holds a directory of 40 tags
_MAX_TAGS = 4096
_SUBFILE_TYPE, _MASK = 254, 4  # tag NewSubfileType, and its bit of a transparency mask


@dataclass(frozen=True)
class _Layout:
    """Sizes of a classic or a big TIFF, in bytes, and how its numbers unpack."""

    count: str  # number of tags in a directory
    tag: int
    link: str  # offset of the next directory
    value: int  # of a tag, bytes from its start


@dataclass(frozen=True)
class Chain:
    """The directories in the main chain of a file."""

    offsets: tuple[int, ...] = ()
    masks: frozenset[int] = frozenset()  # offsets of those that say they are transparency masks


def is_tiff(head: bytes) -> bool:
    """True where the first bytes of a file are those of a TIFF or BigTIFF."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_chain(path: str) -> Chain:
    """Every directory in the file's main chain; StackError where the chain is broken."""
    size = Path(path).stat().st_size
    with Path(path).open("rb", buffering=0) as file:
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = head[2:4] in (b"+\0", b"\0+")
        fields = ("Q", 20, "Q") if big else ("H", 12, "I")
        layout = _Layout(order + fields[0], fields[1], order + fields[2], 12 if big else 8)
        start = 8 if big else 4
        if len(head) < start + struct.calcsize(layout.link):
            raise StackError(f"{path}: is a TIFF file cut off after {size} bytes; copy it again")
        offset = struct.unpack_from(layout.link, head, start)[0]
        if offset == 0:
            raise StackError(f"{path}: is a TIFF file without images; write it again")
        return _walk(file.fileno(), path, offset, size, layout)


def _walk(file: int, path: str, offset: int, size: int, layout: _Layout) -> Chain:
    is_mask: dict[int, bool] = {}  # by offset of the directory
    while offset:
        if offset in is_mask:
            raise StackError(
                f"{path}: its list of frames loops back after page {len(is_mask)}; "
                "the file is damaged: write it again"
            )
        found = _following(file, offset, size, layout)
        if found is None:
            raise StackError(
                f"{path}: is truncated or damaged, its list of frames breaks off after "
                f"page {len(is_mask)}; copy it again"
            )
        following, is_mask[offset] = found
        offset = following
    return Chain(tuple(is_mask), frozenset(at for at, mask in is_mask.items() if mask))


def _following(file: int, offset: int, size: int, layout: _Layout) -> tuple[int, bool] | None:
    """Offset of the next directory, 0 at the end, and whether this one is that of a mask.

    None where this directory is not whole.
    """
    n_count, n_link = struct.calcsize(layout.count), struct.calcsize(layout.link)
    if not 8 <= offset <= size - n_count:
        return None
    data = _read_at(file, offset, _READ_AHEAD)
    n_tags = struct.unpack_from(layout.count, data)[0]
    if not 0 < n_tags <= _MAX_TAGS:
        return None
    end = n_count + n_tags * layout.tag
    is_mask = _is_mask(data, n_count, layout)
    if end + n_link > len(data):
        data = _read_at(file, offset, end + n_link)
    if offset + end == size:
        return 0, is_mask  # some writers leave out the link after the last directory
    if len(data) < end + n_link:
        return None
    return int(struct.unpack_from(layout.link, data, end)[0]), is_mask


def _is_mask(data: bytes, start: int, layout: _Layout) -> bool:
    """Whether NewSubfileType, the first of all tags where there is one, says so."""
    if len(data) < start + layout.tag:
        return False
    order = layout.count[0]
    tag, kind = struct.unpack_from(order + "HH", data, start)
    if tag != _SUBFILE_TYPE or kind not in (3, 4):
        return False
    value = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, start + layout.value)[0]
    return bool(value & _MASK)


def _read_at(file: int, offset: int, n: int) -> bytes:
    os.lseek(file, offset, os.SEEK_SET)
    return os.read(file, n)
