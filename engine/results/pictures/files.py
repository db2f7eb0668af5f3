"""Pictures as files: MP4, GIF, PNG and contact sheets; one picture in memory at a time."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import GifImagePlugin, Image

from engine.errors import MissingExtra
from engine.results.pictures.panels import GAP, Picture

Add = Callable[[Picture], None]

QUALITY = {"crf": "20", "preset": "veryfast"}  # x264: no visible loss
GREY = 40  # between the pictures of a sheet


@contextmanager
def mp4(path: Path, fps: float) -> Iterator[Add]:
    """Write an H.264 movie that every player and slide program reads; takes pictures of one size.

    8-bit 4:2:0 with even sides and BT.709 colours, its index in front (for browsers).
    """
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as movie:
        streams: list[Any] = []

        def add(picture: Picture) -> None:
            frame = av.VideoFrame.from_ndarray(_even(picture), format="rgb24")
            if not streams:
                streams.append(_stream(movie, frame, fps))
            movie.mux(streams[0].encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))

        yield add
        for stream in streams:
            movie.mux(stream.encode(None))


def _stream(movie: Any, frame: Any, fps: float) -> Any:
    try:
        stream = movie.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
    except ValueError as error:
        raise MissingExtra(
            "the installed PyAV has no H.264 encoder; install its own wheel with "
            "`pip install --force-reinstall av`, or write a .gif"
        ) from error
    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
    stream.options = QUALITY
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
    context.color_range = 1  # 16..235, as television has it
    return stream


def _even(picture: Picture) -> Picture:
    """The picture with even sides: padded with a black row or column where necessary."""
    below, right = (side % 2 for side in picture.shape[:2])
    return np.ascontiguousarray(np.pad(picture, ((0, below), (0, right), (0, 0))))


@contextmanager
def gif(path: Path, fps: float) -> Iterator[Add]:
    """Write an endless animated GIF, each frame with a palette of its own."""
    delay = max(round(1000 / fps), 20)  # ms; browsers take less for a mistake
    with path.open("wb") as file:

        def add(picture: Picture) -> None:
            if not file.tell():
                file.write(_gif_header(picture))
            image = Image.fromarray(picture).quantize(256, dither=Image.Dither.NONE)
            parts = GifImagePlugin.getdata(image, duration=delay, include_color_table=True)
            file.writelines(parts)

        yield add
        file.write(b";")


def _gif_header(picture: Picture) -> bytes:
    """GIF89a: size, no colours for all, and the block that makes it loop."""
    height, width = picture.shape[:2]
    size = struct.pack("<HH", width, height)
    return b"GIF89a" + size + b"\x00\x00\x00" + b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"


def png(path: Path, picture: Picture) -> None:
    """Write one picture."""
    Image.fromarray(picture).save(path, format="PNG")


def contact_sheet(pictures: Sequence[Picture]) -> Picture:
    """Pictures of about one size in rows, on a sheet that is about as high as wide."""
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    across = min(max(math.ceil(math.sqrt(len(pictures) * height / width)), 1), len(pictures))
    rows = [pictures[n : n + across] for n in range(0, len(pictures), across)]
    return np.concatenate([_row(row, across * (width + GAP) + GAP) for row in rows])


def _row(pictures: Sequence[Picture], width: int) -> Picture:
    height = max(picture.shape[0] for picture in pictures)
    row = np.full((height + GAP, width, 3), GREY, np.uint8)
    x = GAP
    for picture in pictures:
        row[GAP:, x:][: picture.shape[0], : picture.shape[1]] = picture
        x += max(one.shape[1] for one in pictures) + GAP
    return row
