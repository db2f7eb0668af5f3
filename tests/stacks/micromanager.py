"""Files as Micro-Manager writes them, byte by byte from the descriptions of its two formats.

MMStack:  header, summary, then for each image: directory, pixels, metadata; at the end the map
          https://micro-manager.org/Micro-Manager_File_Formats
NDTiff:   the same without a map; NDTiff.index beside the files tells where pixels lie
          https://github.com/micro-manager/NDTiffStorage
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = tuple[int, int, int, int]  # channel, slice, frame, position
MM_METADATA = 51123
PADDING = 22  # bytes between a directory and its pixels: their distance is nobody's promise


def write_mmstack(
    path: Path,
    images: Mapping[Index, NDArray[np.uint16]],
    summary: Mapping[str, Any],
    xml: str = "",
) -> None:
    """One file of a data set: `images` by index, `summary` as for all of its files."""
    told = json.dumps({"MicroManagerVersion": "2.0.1", "Prefix": "", **summary}).encode()
    data = bytearray(struct.pack("<2sHI", b"II", 42, 40 + len(told)))
    data += struct.pack("<8I", 54773648, 0, 483765892, 0, 99384722, 0, 2355492, len(told)) + told
    offsets = _write_images(data, list(images.values()), xml)
    struct.pack_into("<I", data, 12, len(data))
    data += struct.pack("<II", 3453623, len(images))
    for index, (directory, _) in zip(images, offsets, strict=True):
        data += struct.pack("<5I", *index, directory)
    path.write_bytes(data)


def write_ndtiff(
    folder: Path, files: Mapping[str, list[tuple[dict[str, int], NDArray[np.uint16]]]]
) -> None:
    """A data set: for each file its images with their indices along named axes."""
    summary = b'{"PixelSize_um": 0.5}'
    index = bytearray()
    for name, images in files.items():
        start = 8 + 8 + 12 + len(summary)
        data = bytearray(struct.pack("<2sHI", b"II", 42, start))
        data += struct.pack("<5I", 483729, 3, 0, 2355492, len(summary)) + summary
        offsets = _write_images(data, [pixels for _, pixels in images], "")
        (folder / name).write_bytes(data)
        for (axes, pixels), (_, at) in zip(images, offsets, strict=True):
            key, height, width = json.dumps(axes).encode(), *pixels.shape
            index += struct.pack("<I", len(key)) + key
            index += struct.pack("<I", len(name)) + name.encode()
            index += struct.pack("<Iiiiiiii", at, width, height, 1, 0, 0, 0, 0)
    (folder / "NDTiff.index").write_bytes(index)


def _write_images(
    data: bytearray, images: list[NDArray[np.uint16]], xml: str
) -> list[tuple[int, int]]:
    """Append directories and pixels; where each of them lies."""
    offsets = []
    for i, pixels in enumerate(images):
        height, width = pixels.shape
        meta = b'{"Width": 1}\0'
        tags: list[tuple[int, int, int, int]] = [
            (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1),
            (262, 3, 1, 1), (270, 2, 0, 0), (273, 4, 1, 0), (277, 3, 1, 1), (278, 3, 1, height),
            (279, 4, 1, pixels.nbytes), (MM_METADATA, 2, len(meta), 0),
        ]  # fmt: skip
        description = (xml.encode() + b"\0") if xml and i == 0 else b""
        tags = [tag for tag in tags if tag[0] != 270 or description]
        directory = len(data)
        end = directory + 2 + 12 * len(tags) + 4
        at = end + PADDING + len(description) + len(meta)
        following = at + pixels.nbytes if i + 1 < len(images) else 0
        places = {270: end + PADDING, MM_METADATA: end + PADDING + len(description), 273: at}
        data += struct.pack("<H", len(tags))
        for tag, kind, count, value in tags:
            count = len(description) if tag == 270 else count
            data += struct.pack("<HHII", tag, kind, count, places.get(tag, value))
        data += struct.pack("<I", following) + bytes(PADDING) + description + meta
        assert len(data) == at
        data += pixels.astype("<u2").tobytes()
        offsets.append((directory, at))
    return offsets
