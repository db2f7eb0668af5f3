"""PyTorch's pixel-unshuffle as ONNX operators that every runtime has.

PyTorch's exporter writes reshapes by computed sizes, of which nobody can tell what a pixel sees.
"""

from __future__ import annotations

from typing import Any

from onnxscript import opset18 as op


def space_to_depth(image: Any, downscale_factor: int) -> Any:
    """`pixel_unshuffle` of (N, C, H, W), a value of the graph: SpaceToDepth, channel by channel.

    PyTorch puts all pixels of a block in a row for each channel, ONNX all channels for each pixel
    of the block. Of one channel the two are the same. (SpaceToDepth of all channels and a Gather
    that reorders them is right as well, but OpenVINO 2026.4 gets the convolution after it wrong.)
    """
    n_channels = int(image.shape[1])
    if n_channels == 1:
        return op.SpaceToDepth(image, blocksize=downscale_factor)
    channels = op.Split(image, num_outputs=n_channels, axis=1)
    blocks = [op.SpaceToDepth(channel, blocksize=downscale_factor) for channel in channels]
    return op.Concat(*blocks, axis=1)
