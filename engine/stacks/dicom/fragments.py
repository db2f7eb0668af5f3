"""Where frames lie in compressed pixels: items of a sequence, one or several for each frame.

    item: offsets of frames | item: fragment | item: fragment | ... | delimiter      DICOM PS3.5 A.4

The first item may be empty. Where frames have several fragments, it says which of them begin a
frame; without it, the end of a JPEG stream does.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from engine.stacks.dicom.library import Damaged

Span = tuple[int, int]  # offset in the file, length
Frame = tuple[Span, ...]  # fragments of one frame

_ITEM, _DELIMITER = 0xFFFEE000, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
STREAM_STARTS = (b"\xff\xd8", b"\xff\x4f")  # of JPEG and JPEG-LS, of JPEG 2000
STREAM_END = b"\xff\xd9"  # of all three
TAIL = 16  # bytes after the end of a stream, at most: padding


def frames_of(file: BinaryIO, size: int, n_frames: int) -> tuple[Frame, ...]:
    """Fragments of each frame; `file` is at the first item, and has `size` bytes in all.

    Raises Damaged where the items end early, or are not those of `n_frames` frames.
    """
    spans = _items(file, size)
    if not spans:
        raise Damaged("has no compressed pixels; copy it again")
    table, fragments = spans[0], spans[1:]
    begins = _starts(file, table, fragments, n_frames)
    if begins is None:
        raise Damaged(
            f"counts {n_frames} frames, but its compressed pixels are not cut into as many; "
            "write it again with one fragment a frame"
        )
    ends = [*begins[1:], len(fragments)]
    return tuple(tuple(fragments[a:b]) for a, b in zip(begins, ends, strict=True))


def read_frame(file: BinaryIO, frame: Frame) -> bytes:
    """The stream of one frame."""
    parts = []
    for offset, length in frame:
        file.seek(offset)
        parts.append(file.read(length))
    return b"".join(parts)


def _items(file: BinaryIO, size: int) -> list[Span]:
    """Every item up to the delimiter, or up to the end of the file where that follows an item."""
    spans: list[Span] = []
    at = file.tell()
    while at < size:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            raise Damaged("is truncated in its compressed pixels; copy it again")
        group, element, length = struct.unpack("<HHI", head)
        tag = group << 16 | element
        if tag == _DELIMITER:
            return spans
        if tag != _ITEM or length == _UNDEFINED:
            raise Damaged("has damaged items in its compressed pixels; copy it again")
        if at + 8 + length > size:
            raise Damaged(
                f"is truncated: a part of its compressed pixels has {length} bytes, of which "
                f"{size - at - 8} are there; copy it again"
            )
        spans.append((at + 8, length))
        at += 8 + length
    return spans


def _starts(file: BinaryIO, table: Span, fragments: list[Span], n_frames: int) -> list[int] | None:
    """Numbers of the fragments that begin a frame; None where that is not `n_frames` of them."""
    streams = [_begins_stream(file, span) for span in fragments]
    if len(fragments) == n_frames:
        return list(range(n_frames))
    if sum(streams) > n_frames:
        raise Damaged(
            f"counts {n_frames} {'frame' if n_frames == 1 else 'frames'}, but holds {sum(streams)} "
            "compressed images; write it again with the right NumberOfFrames"
        )
    if n_frames == 1 and fragments:
        return [0]
    file.seek(table[0])
    data = file.read(table[1])
    offsets = struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])
    first = fragments[0][0] if fragments else 0
    at = {span[0] - first: i for i, span in enumerate(fragments)}
    if len(offsets) == n_frames and all(offset in at for offset in offsets):
        begins = [at[offset] for offset in offsets]
        if begins[0] == 0 and begins == sorted(set(begins)):
            return begins
    begins = [i for i, is_start in enumerate(streams) if is_start]
    return begins if len(begins) == n_frames and begins[0] == 0 else None


def _begins_stream(file: BinaryIO, span: Span) -> bool:
    file.seek(span[0])
    return file.read(min(2, span[1])) in STREAM_STARTS
