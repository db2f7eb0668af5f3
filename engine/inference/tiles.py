"""A frame, or a region of it, through the network, whole or in tiles: the result is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.geometry.tiling import FrameTiling, Region
from engine.runtimes.base import Runtime


def predict(
    frame: NDArray[Any], statistics: NDArray[np.float32], tiling: FrameTiling, runtime: Runtime
) -> NDArray[np.float32]:
    """Probabilities of `frame`, float32 (K, Y, X).

    `frame` has shape (C, Y, X) and holds raw pixels; `statistics` (C, 2) are the whole frame's.
    The frame is padded once, by reflection at the bottom and right, to a multiple of the stride.
    """
    return predict_region(frame, statistics, tiling.region(), runtime)


def predict_region(
    pixels: NDArray[Any],
    statistics: NDArray[np.float32],
    region: Region,
    runtime: Runtime,
    on_tile: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """Probabilities of a region, float32 (K, region.y, region.x).

    `pixels`, (C, Y, X), are those of `region.read_y` and `region.read_x`. `on_tile` is called
    before each tile.
    """
    height, width = region.padded
    top, left = region.read_y.start, region.read_x.start
    below = max(tile.y.read.stop for tile in region.tiles)
    right = max(tile.x.read.stop for tile in region.tiles)
    padded = pad_to(pixels, (below - top, right - left))
    if len(region.tiles) == 1 and padded.shape[1:] == (height, width):
        whole: NDArray[np.float32] = runtime.run(padded[None], statistics[None])[0]
        return whole[:, region.y.as_slice(), region.x.as_slice()]
    out: NDArray[np.float32] | None = None
    for tile in region.tiles:
        on_tile()
        read = (slice(None), tile.y.read.as_slice(top), tile.x.read.as_slice(left))
        result = runtime.run(np.ascontiguousarray(padded[read])[None], statistics[None])[0]
        if out is None:
            out = np.empty((len(result), region.y.size, region.x.size), dtype=np.float32)
        # Tiles write whole strides; what sticks out of the region is another block's.
        y = tile.y.write.within(region.y)
        x = tile.x.write.within(region.x)
        out[:, y.as_slice(region.y.start), x.as_slice(region.x.start)] = result[
            :, y.as_slice(tile.y.read.start), x.as_slice(tile.x.read.start)
        ]
    assert out is not None  # a region has at least one tile
    return out


def pad_to(frame: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Reflect `frame`, (C, Y, X), at the bottom and right until it is of `shape`."""
    below, right = shape[0] - frame.shape[1], shape[1] - frame.shape[2]
    if below <= 0 and right <= 0:
        return frame
    return np.pad(frame, ((0, 0), (0, max(below, 0)), (0, max(right, 0))), mode="reflect")
