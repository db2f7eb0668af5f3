"""Files made to break readers: what they claim has nothing to do with what they hold."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile

from tests.stacks.frames import ramp

SHORT, LONG, LONG8, ASCII, IFD = 3, 4, 16, 2, 13
Tag = tuple[int, int, int, Any]  # code, type, count, value or offset


def tiff(tags: list[Tag], data: bytes = bytes(64), *, big: bool = False, link: int = 0) -> bytes:
    """A TIFF of one directory right behind the header, and `data` behind that.

    Values of tags are put in as they are; the data starts at `data_at(len(tags))`.
    """
    fields = sorted(tags)
    if big:
        out = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) + struct.pack("<Q", len(fields))
        out += b"".join(struct.pack("<HHQQ", c, t, n, v) for c, t, n, v in fields)
        return out + struct.pack("<Q", link) + data
    out = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(fields))
    out += b"".join(struct.pack("<HHII", c, t, n, v) for c, t, n, v in fields)
    return out + struct.pack("<I", link) + data


def data_at(n_tags: int, *, big: bool = False) -> int:
    return 16 + 8 + 20 * n_tags + 8 if big else 8 + 2 + 12 * n_tags + 4


def image(changes: dict[int, Tag | None] | None = None, **options: Any) -> bytes:
    """An 8 x 8 image of bytes in one strip; `changes` replace tags, or leave them out."""
    tags: dict[int, Tag] = {
        256: (256, LONG, 1, 8),
        257: (257, LONG, 1, 8),
        258: (258, SHORT, 1, 8),
        259: (259, SHORT, 1, 1),
        262: (262, SHORT, 1, 1),
        273: (273, LONG, 1, 0),
        277: (277, SHORT, 1, 1),
        278: (278, LONG, 1, 8),
        279: (279, LONG, 1, 64),
    }
    for code, tag in (changes or {}).items():
        if tag is None:
            tags.pop(code, None)
        else:
            tags[code] = tag
    if tags.get(273) == (273, LONG, 1, 0):
        tags[273] = (273, LONG, 1, data_at(len(tags), big=options.get("big", False)))
    return tiff(list(tags.values()), **options)


def set_tag(code: int, count: int, value: int, type_: int = LONG) -> dict[int, Tag | None]:
    return {code: (code, type_, count, value)}


def ome(xml: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        tifffile.imwrite(path, ramp((8, 8)), description=xml, metadata=None)

    return make


def ome_pixels(inside: str = "<TiffData/>", head: str = "", **sizes: Any) -> str:
    sizes = {"SizeX": 8, "SizeY": 8, "SizeC": 1, "SizeZ": 1, "SizeT": 1} | sizes
    listed = " ".join(f'{k}="{v}"' for k, v in sizes.items())
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{head}'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" {listed}>{inside}'
        "</Pixels></Image></OME>"
    )


LAUGHS = "<!DOCTYPE x [<!ENTITY a0 'ha'>" + "".join(
    f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 12)
) + "]>"  # fmt: skip


def imagej(description: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        tifffile.imwrite(path, ramp((8, 8)), description=description, metadata=None)

    return make


def shaped(description: str) -> Callable[[Path], None]:
    return imagej(description)


def packed(compression: int, data: bytes, side: int = 60_000) -> bytes:
    """One strip of `side` x `side` bytes."""
    return image(
        set_tag(256, 1, side) | set_tag(257, 1, side) | set_tag(278, 1, side)
        | set_tag(259, 1, compression, SHORT) | set_tag(279, 1, len(data)),
        data=data,
    )  # fmt: skip


def deflated_zeros(n: int) -> bytes:
    packer = zlib.compressobj(9)
    piece = bytes(1 << 20)
    return b"".join(packer.compress(piece) for _ in range(n >> 20)) + packer.flush()


def j2k(side: int) -> bytes:
    """A JPEG 2000 whose header claims another size."""
    data = bytearray(imagecodecs.jpeg2k_encode(ramp((8, 8), "uint8"), codecformat="j2k"))
    at = data.index(b"\xff\x51")
    struct.pack_into(">II", data, at + 6, side, side)
    struct.pack_into(">II", data, at + 22, side, side)
    return bytes(data)


def png(width: int, height: int, body: bytes, depth: int = 8, color: int = 0) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def jpeg(height: int, width: int) -> bytes:
    data = bytearray(imagecodecs.jpeg_encode(ramp((16, 16), "uint8")))
    at = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, at + 5, height, width)
    return bytes(data)


def subifd_loop() -> bytes:
    """A directory whose sub-directory is itself."""
    return image({330: (330, IFD, 1, 8)})


def many_strips(n: int) -> bytes:
    """Strips of one row, all of which are the same bytes."""
    at = data_at(9)
    offsets = struct.pack("<I", at + 8 * n) * n
    counts = struct.pack("<I", 8) * n
    changes = (
        set_tag(257, 1, n) | set_tag(278, 1, 1) | set_tag(273, n, at) | set_tag(279, n, at + 4 * n)
    )
    return image(changes, data=offsets + counts + bytes(64))


def tile_layout(width: int, height: int, n: int, count: int) -> bytes:
    """Tiles of a size, `n` of which are listed with one byte count."""
    tags: list[Tag] = [
        (256, LONG, 1, 100_000),
        (257, LONG, 1, 100_000),
        (258, SHORT, 1, 8),
        (259, SHORT, 1, 8),
        (262, SHORT, 1, 1),
        (277, SHORT, 1, 1),
        (322, LONG, 1, width),
        (323, LONG, 1, height),
    ]
    at = data_at(len(tags) + 2)
    tags += [(324, LONG, n, at), (325, LONG, n, at + 4 * n)]
    return tiff(tags, struct.pack("<I", at + 8 * n) * n + struct.pack("<I", count) * n + bytes(64))


def chain(n: int) -> bytes:
    """Directories without an image, one after the other."""
    size = 2 + 12 + 4
    out = b"II*\0" + struct.pack("<I", 8)
    for i in range(n):
        link = 8 + (i + 1) * size if i < n - 1 else 0
        out += struct.pack("<HHHII", 1, 254, LONG, 1, 0) + struct.pack("<I", link)
    return out


FILES: dict[str, Any] = {
    "plain.tif": image(),
    "huge-one-strip.tif": image(set_tag(256, 1, 2**31) | set_tag(257, 1, 2**31)),
    "huge-4g.tif": image(set_tag(256, 1, 2**32 - 1) | set_tag(257, 1, 2**32 - 1)),
    "tiny-strips.tif": image(set_tag(257, 1, 2**31) | set_tag(278, 1, 1)),
    "many-strips.tif": many_strips(50_000),
    "offset-beyond.tif": image(set_tag(273, 1, 2**31)),
    "offset-max.tif": image(set_tag(273, 1, 2**32 - 1) | set_tag(279, 1, 2**32 - 1)),
    "count-zero.tif": image(set_tag(279, 1, 0)),
    "count-huge.tif": image(set_tag(279, 1, 2**32 - 1)),
    "count-short.tif": image(set_tag(279, 1, 5)),
    "width-zero.tif": image(set_tag(256, 1, 0)),
    "height-zero.tif": image(set_tag(257, 1, 0)),
    "rows-zero.tif": image(set_tag(278, 1, 0)),
    "rows-huge.tif": image(set_tag(278, 1, 2**32 - 1)),
    "samples-zero.tif": image(set_tag(277, 1, 0, SHORT)),
    "samples-many.tif": image(set_tag(277, 1, 65_535, SHORT)),
    "bits-zero.tif": image(set_tag(258, 1, 0, SHORT)),
    "bits-many.tif": image(set_tag(258, 1, 65_535, SHORT)),
    "no-width.tif": image({256: None}),
    "no-offsets.tif": image({273: None}),
    "no-counts.tif": image({279: None}),
    "overlaps-header.tif": image(set_tag(273, 1, 0) | set_tag(279, 1, 64)),
    "tag-of-4-gb.tif": image({270: (270, ASCII, 2**32 - 1, 8)}),
    "tag-of-4-gb-longs.tif": image({65_000: (65_000, LONG, 2**32 - 1, 8)}),
    "offsets-of-4-gb.tif": image(set_tag(273, 2**32 - 1, 8)),
    "offsets-of-16-gb.tif": image(set_tag(273, 2**30, 8) | set_tag(257, 1, 2**30)),
    "negative-width.tif": image({256: (256, 9, 1, 2**32 - 5)}),
    "double-width.tif": image({256: (256, 12, 1, 8)}),
    "ascii-width.tif": image({256: (256, ASCII, 4, 0x38383838)}),
    "unknown-type.tif": image({256: (256, 99, 1, 8)}),
    "big.tif": image(big=True),
    "big-counts.tif": image(set_tag(273, 2**63, 8, LONG8), big=True),
    "big-counts-max.tif": image(set_tag(279, 2**64 - 1, 8, LONG8), big=True),
    "big-width.tif": image({256: (256, LONG8, 1, 2**63)}, big=True),
    "big-tag.tif": image({270: (270, ASCII, 2**63 - 1, 8)}, big=True),
    "big-offset.tif": image(set_tag(273, 1, 2**63, LONG8), big=True),
    "big-many-tags.tif": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**63),
    "many-tags.tif": b"II*\0\x08\0\0\0\xff\xff",
    "loop.tif": image(link=8),
    "loop-big.tif": image(big=True, link=16),
    "into-itself.tif": image(link=12),
    "sub-loop.tif": subifd_loop(),
    "sub-beyond.tif": image({330: (330, IFD, 1, 2**31)}),
    "sub-a-million.tif": image({330: (330, IFD, 2**28, 8)}),
    "long-chain.tif": chain(10_000),
    "tiles-huge.tif": tile_layout(2**31, 2**31, 1, 10),
    "tiles-zero.tif": tile_layout(0, 0, 1, 10),
    "tiles-one.tif": tile_layout(1, 1, 1, 10),
    "tiles-few.tif": tile_layout(16, 16, 5, 10),
    "tiles-bomb.tif": tile_layout(50_000, 50_000, 4, 60),
    "deflate-bomb.tif": packed(8, deflated_zeros(60_000 * 60_000)),
    "deflate-small-claim.tif": packed(8, deflated_zeros(2_000_000_000), side=64),
    "lzw-claim.tif": packed(5, bytes(2000)),
    "packbits-claim.tif": packed(32773, b"\x81\0" * 2000),
    "zstd-claim.tif": packed(50_000, imagecodecs.zstd_encode(bytes(200_000_000))),
    "zstd-small-claim.tif": packed(50_000, imagecodecs.zstd_encode(bytes(2_000_000)) * 50, side=64),
    "lzma-claim.tif": packed(34925, imagecodecs.lzma_encode(bytes(100_000_000))),
    "jpeg2000.tif": packed(34712, j2k(8), side=8),
    "jpeg2000-bomb.tif": packed(34712, j2k(60_000), side=60_000),
    "jpeg2000-small-claim.tif": packed(34712, j2k(30_000), side=8),
    "jpeg-small-claim.tif": packed(7, jpeg(65_000, 65_000), side=16),
    "jpeg-claim.tif": packed(7, jpeg(60_000, 60_000)),
    "webp-junk.tif": packed(50_001, b"RIFF" + bytes(60), side=8),
    "png-in-tiff.tif": packed(34933, png(60_000, 60_000, deflated_zeros(1 << 20)), side=8),
    "fax.tif": packed(4, bytes(60), side=30_000),
    "ome-entity.tif": ome(ome_pixels(head=LAUGHS, inside="<TiffData/>&a11;")),
    "ome-entity-file.tif": ome(
        ome_pixels(head="<!DOCTYPE x [<!ENTITY f SYSTEM 'file:///etc/passwd'>]>", inside="&f;")
    ),
    "ome-deep.tif": ome(ome_pixels(inside="<a>" * 200_000 + "</a>" * 200_000)),
    "ome-planes.tif": ome(ome_pixels(SizeT=2**31, SizeZ=2**31)),
    "ome-planes-1e9.tif": ome(ome_pixels(SizeT=1_000_000_000)),
    "ome-planes-1e6.tif": ome(ome_pixels(SizeT=1_000_000)),
    "ome-plane-count.tif": ome(ome_pixels('<TiffData IFD="0" PlaneCount="2000000000"/>', SizeT=5)),
    "ome-first.tif": ome(ome_pixels('<TiffData IFD="9999999999" FirstT="99999"/>')),
    "ome-negative.tif": ome(ome_pixels(SizeX=-8)),
    "ome-zero.tif": ome(ome_pixels(SizeT=0)),
    "ome-words.tif": ome(ome_pixels(SizeT="many")),
    "ome-wide.tif": ome(ome_pixels(SizeX=10**9, SizeY=10**9)),
    "ome-images.tif": ome(
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        + ome_pixels().partition("2016-06\">")[2].removesuffix("</OME>") * 2_000 + "</OME>"
    ),
    "ome-away.tif": ome(
        ome_pixels('<TiffData><UUID FileName="/dev/zero">urn:uuid:1</UUID></TiffData>')
    ),
    "ome-parent.tif": ome(
        ome_pixels('<TiffData><UUID FileName="../x.tif">urn:uuid:1</UUID></TiffData>')
    ),
    "ome-pipe.tif": ome(
        ome_pixels('<TiffData><UUID FileName="pipe">urn:uuid:1</UUID></TiffData>')
    ),
    "imagej-million.tif": imagej("ImageJ=1.53\nimages=1000000\nslices=1000000\n"),
    "imagej-2g.tif": imagej("ImageJ=1.53\nimages=2147483647\nframes=2147483647\n"),
    "imagej-mixed.tif": imagej("ImageJ=1.53\nimages=6\nchannels=1000000\nslices=1000000\n"),
    "imagej-negative.tif": imagej("ImageJ=1.53\nimages=-3\nslices=-3\n"),
    "imagej-words.tif": imagej("ImageJ=1.53\nimages=x\nslices=\n"),
    "shaped-huge.tif": shaped('{"shape": [1000000000, 1000000000, 8, 8]}'),
    "shaped-many.tif": shaped('{"shape": [' + "1, " * 100_000 + "8, 8]}"),
    "shaped-deep.tif": shaped('{"shape": ' + "[" * 50_000 + "]" * 50_000 + "}"),
    "shaped-negative.tif": shaped('{"shape": [-1, 8, 8]}'),
    "huge.png": png(2**31 - 1, 2**31 - 1, b""),
    "zero.png": png(0, 0, b""),
    "bomb.png": png(60_000, 60_000, deflated_zeros(60_000 * 60_001)),
    "small-claim.png": png(8, 8, deflated_zeros(2_000_000_000)),
    "bad-color.png": png(8, 8, zlib.compress(bytes(72)), color=5),
    "bad-depth.png": png(8, 8, zlib.compress(bytes(72)), depth=77),
    "text-bomb.png": png(8, 8, zlib.compress(bytes(72))).replace(b"IDAT", b"zTXt"),
    "claim.jpg": jpeg(65_000, 65_000),
    "zero.jpg": jpeg(0, 0),
    "no-markers.jpg": b"\xff\xd8\xff" + b"\xff" * 500_000 + b"\xff\xd9",
    "junk-markers.jpg": b"\xff\xd8\xff\xe0\0\x02" * 200_000 + b"\xff\xd9",
    "length-zero.jpg": b"\xff\xd8\xff\xe0\0\0" + b"\xff\xe0\0\0" * 100_000,
    "two-frames.jpg": jpeg(16, 16).replace(
        b"\xff\xda", b"\xff\xc0\0\x0b\x08\xff\xff\xff\xff\x01\x01\x11\0\xff\xda", 1
    ),
}  # fmt: skip


def write_all(folder: Path) -> Iterator[Path]:
    for name, made in FILES.items():
        path = folder / name
        if isinstance(made, bytes):
            path.write_bytes(made)
        else:
            made(path)
        yield path


def mutations(seeds: list[bytes], n: int, seed: int = 0) -> Iterator[bytes]:
    """Flipped, overwritten, cut-off, repeated and mixed bytes; the same for the same seed."""
    rng = np.random.default_rng(seed)
    special = [0, 1, 0x7F, 0x80, 0xFF]
    for _ in range(n):
        data = bytearray(seeds[rng.integers(len(seeds))])
        for _ in range(rng.integers(1, 9)):
            # Headers matter most, and lie at either end.
            span = min(len(data), int(rng.choice([16, 300, len(data)])))
            at = (
                int(rng.integers(span))
                if rng.random() < 0.6
                else len(data) - 1 - int(rng.integers(span))
            )
            kind = rng.integers(4)
            if kind == 0:
                data[at] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                data[at] = special[rng.integers(len(special))]
            elif kind == 2:
                width = int(rng.choice([2, 4, 8]))
                data[at : at + width] = (
                    special[rng.integers(len(special))].to_bytes(1, "little") * width
                )
            elif len(data) > at + 8:
                other = int(rng.integers(len(data)))
                data[at : at + 8] = data[other : other + 8]
        if rng.random() < 0.2:
            del data[int(rng.integers(1, len(data) + 1)) :]
        yield bytes(data)
