"""PyTorch's pixel-unshuffle as ONNX operators that every runtime has.

PyTorch's exporter writes reshapes by computed sizes, of which nobody can tell what a pixel sees.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnxscript import opset18 as op


def space_to_depth(image: Any, downscale_factor: int) -> Any:
    """`pixel_unshuffle` of (N, C, H, W), a value of the graph: SpaceToDepth, channels reordered.

    PyTorch has all pixels of a block beside each other for each channel, ONNX all channels for
    each pixel of the block. Of one channel they are the same.
    """
    n_channels, n_pixels = int(image.shape[1]), downscale_factor**2
    blocks = op.SpaceToDepth(image, blocksize=downscale_factor)
    if n_channels == 1:
        return blocks
    order = np.arange(n_pixels * n_channels).reshape(n_pixels, n_channels).T.ravel()
    channels = op.Constant(value_ints=order.tolist())
    return op.Gather(blocks, channels, axis=1)  # type: ignore[type-var]
