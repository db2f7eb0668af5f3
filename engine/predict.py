"""A frame through the network, whole or in tiles: the result is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.runtimes.base import Runtime
from engine.tiling import FrameTiling


def predict(
    frame: NDArray[Any], statistics: NDArray[np.float32], tiling: FrameTiling, runtime: Runtime
) -> NDArray[np.float32]:
    """Probabilities of `frame`, float32 (K, Y, X).

    `frame` has shape (C, Y, X) and holds raw pixels; `statistics` (C, 2) are the whole frame's.
    The frame is padded once, by reflection at the bottom and right, to a multiple of the stride.
    """
    padded = pad_to(frame, tiling.padded)
    if tiling.n_tiles == 1:
        whole = runtime.run(padded[None], statistics[None])[0]
    else:
        whole = _stitch(padded, statistics, tiling, runtime)
    cropped: NDArray[np.float32] = whole[:, : tiling.height, : tiling.width]
    return cropped


def pad_to(frame: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Reflect `frame`, (C, Y, X), at the bottom and right until it is of `shape`."""
    below, right = shape[0] - frame.shape[1], shape[1] - frame.shape[2]
    if not (below or right):
        return frame
    return np.pad(frame, ((0, 0), (0, below), (0, right)), mode="reflect")


def _stitch(
    padded: NDArray[Any], statistics: NDArray[np.float32], tiling: FrameTiling, runtime: Runtime
) -> NDArray[np.float32]:
    whole: NDArray[np.float32] | None = None
    for tile in tiling.tiles():
        pixels = np.ascontiguousarray(padded[(slice(None), *tile.read)])
        result = runtime.run(pixels[None], statistics[None])[0]
        if whole is None:
            whole = np.empty((len(result), *padded.shape[1:]), dtype=np.float32)
        whole[(slice(None), *tile.write)] = result[(slice(None), *tile.crop)]
    assert whole is not None  # a tiling has at least one tile
    return whole
