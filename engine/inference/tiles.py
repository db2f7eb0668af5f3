"""A frame, or a region of it, through the network, whole or in tiles: the result is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.geometry.tiling import FrameTiling, Region
from engine.runtimes.base import Session


def predict(
    frame: NDArray[Any], statistics: NDArray[np.float32], tiling: FrameTiling, session: Session
) -> NDArray[np.float32]:
    """Probabilities of `frame`, float32 (K, Y, X).

    `frame` has shape (C, Y, X) and holds raw pixels; `statistics` (C, 2) are the whole frame's.
    The frame is padded once, by reflection at the bottom and right, to a multiple of the stride.
    """
    return predict_region(frame, statistics, tiling.region(), session)


def predict_region(
    pixels: NDArray[Any],
    statistics: NDArray[np.float32],
    region: Region,
    session: Session,
    on_tile: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """Probabilities of a region, float32 (K, region.y, region.x).

    `pixels`, (C, Y, X), are those of `region.read_y` and `region.read_x`. `on_tile` is called
    before each tile.
    """
    top, left = region.read_y.start, region.read_x.start
    below = max(tile.y.read.stop for tile in region.tiles)
    right = max(tile.x.read.stop for tile in region.tiles)
    padded = pad_to(pixels, (below - top, right - left))
    if len(region.tiles) == 1 and padded.shape[1:] == region.padded:
        whole = session.run(padded[None], statistics[None])
        return whole[0, :, region.y.as_slice(), region.x.as_slice()]
    out = np.empty((session.n_outputs, region.y.size, region.x.size), dtype=np.float32)
    batch: NDArray[np.float32] | None = None
    for tile in region.tiles:
        on_tile()
        read = padded[:, tile.y.read.as_slice(top), tile.x.read.as_slice(left)]
        batch = session.run(read[None], statistics[None], batch)  # tiles are all of one shape
        # Tiles write whole strides; what sticks out of the region is another block's.
        y = tile.y.write.within(region.y)
        x = tile.x.write.within(region.x)
        out[:, y.as_slice(region.y.start), x.as_slice(region.x.start)] = batch[
            0, :, y.as_slice(tile.y.read.start), x.as_slice(tile.x.read.start)
        ]
    return out


def pad_to(frame: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Reflect `frame`, (C, Y, X), at the bottom and right until it is of `shape`."""
    below, right = (max(n - size, 0) for n, size in zip(shape, frame.shape[1:], strict=True))
    if not below and not right:
        return frame
    return np.pad(frame, ((0, 0), (0, below), (0, right)), mode="reflect")
