"""Windows that together are a frame: how one is gone through that is too large to be read."""

from __future__ import annotations

from collections.abc import Iterator

from engine.geometry.tiling import round_up
from engine.stacks.base import StackInfo

SIDE = 2048  # px; least width of a window, where what is decoded at once is narrower than the frame
PIXELS = 4 * 2**20  # px read at once, or a little more: whole strips, tiles or chunks


def windows_of(info: StackInfo) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each window, in raster order, along what is decoded at once."""
    height, width = info.size("Y"), info.size("X")
    down, across = window_shape(info)
    for y in range(0, height, down):
        for x in range(0, width, across):
            yield slice(y, min(y + down, height)), slice(x, min(x + across, width))


def window_shape(info: StackInfo) -> tuple[int, int]:
    """Height and width of every window but the last ones."""
    height, width = info.size("Y"), info.size("X")
    piece_height, piece_width = info.piece or (1, width)
    across = width if piece_width >= width else min(round_up(SIDE, piece_width), width)
    return min(round_up(max(PIXELS // across, 1), piece_height), height), across
