"""Frames, or a region of them, through the network, whole or in tiles: the result is the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.geometry.tiling import FrameTiling, Region
from engine.runtimes.base import Floats, Pixels, Result, Session

Frame = tuple[Pixels, Floats]  # (C, Y, X), raw, and the whole frame's statistics, (C, 2)


def predict(
    frame: NDArray[Any], statistics: NDArray[np.float32], tiling: FrameTiling, session: Session
) -> Result:
    """Outputs of a session for `frame`, (K, Y, X).

    `frame` has shape (C, Y, X) and holds raw pixels; `statistics` (C, 2) are the whole frame's.
    The frame is padded once, by reflection at the bottom and right, to a multiple of the stride.
    """
    return predict_regions([(frame, statistics)], tiling.region(), session)[0]


def predict_regions(
    frames: Sequence[Frame],
    region: Region,
    session: Session,
    batch: int = 1,
    on_tile: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Outputs of a session for a region of some frames, (K, region.y, region.x) each.

    Pixels, (C, Y, X), are those of `region.read_y` and `region.read_x`. `batch` tiles are run at
    once, of several frames too; the last are repeated where there are fewer, so that all runs are
    of one shape. `on_tile` is called before each run.
    """
    top, left = region.read_y.start, region.read_x.start
    below = max(tile.y.read.stop for tile in region.tiles)
    right = max(tile.x.read.stop for tile in region.tiles)
    padded = [pad_to(pixels, (below - top, right - left)) for pixels, _ in frames]
    if batch == 1 and len(region.tiles) == 1 and padded[0].shape[1:] == region.padded:
        inside = region.y.as_slice(), region.x.as_slice()
        runs = zip(padded, frames, strict=True)
        return [session.run(p[None], values[None])[0][:, *inside] for p, (_, values) in runs]
    shape = (session.n_outputs, region.y.size, region.x.size)
    found = [np.empty(shape, dtype=session.dtype) for _ in frames]
    out: Result | None = None
    tiles = list(itertools.product(range(len(frames)), region.tiles))
    for first in range(0, len(tiles), batch):
        on_tile()
        these = tiles[first : first + batch]
        full = these + these[-1:] * (batch - len(these))
        pixels = [
            padded[at][:, tile.y.read.as_slice(top), tile.x.read.as_slice(left)]
            for at, tile in full
        ]
        # Tiles are all of one shape.
        out = session.run(np.stack(pixels), np.stack([frames[at][1] for at, _ in full]), out)
        for (at, tile), result in zip(these, out, strict=False):
            # Tiles write whole strides; what sticks out of the region is another block's.
            y = tile.y.write.within(region.y)
            x = tile.x.write.within(region.x)
            found[at][:, y.as_slice(region.y.start), x.as_slice(region.x.start)] = result[
                :, y.as_slice(tile.y.read.start), x.as_slice(tile.x.read.start)
            ]
    return found


def pad_to(frame: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Reflect `frame`, (C, Y, X), at the bottom and right until it is of `shape`."""
    below, right = (max(n - size, 0) for n, size in zip(shape, frame.shape[1:], strict=True))
    if not below and not right:
        return frame
    return np.pad(frame, ((0, 0), (0, below), (0, right)), mode="reflect")
