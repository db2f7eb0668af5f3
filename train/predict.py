"""Whole frames through a network while it is being trained."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def pad_to_stride(image: Tensor, stride: int) -> Tensor:
    """Reflect (N, C, H, W) at the bottom and the right up to multiples of `stride`, as the engine.

    Frames smaller than the margin itself are reflected to and fro.
    """
    height, width = image.shape[2:]
    rows = _reflected(height, -(-height // stride) * stride)
    columns = _reflected(width, -(-width // stride) * stride)
    return image[:, :, rows][:, :, :, columns]


def _reflected(size: int, wanted: int) -> Tensor:
    period = max(2 * size - 2, 1)
    index = torch.arange(wanted) % period
    return torch.where(index < size, index, period - index)


@torch.inference_mode()
def predict_logits(network: nn.Module, image: Tensor) -> Tensor:
    """Logits (n_out, Y, X) on the CPU of one normalised frame (C, Y, X) of any size, in fp32."""
    device = next(network.parameters()).device
    stride = cast(int, network.stride)
    padded = pad_to_stride(image[None], stride).to(device, memory_format=torch.channels_last)
    height, width = image.shape[1:]
    return cast(Tensor, network(padded)[0, :, :height, :width].float().cpu())


def probabilities(logits: Tensor) -> NDArray[np.float32]:
    """Foreground probability (Y, X) from the logits (1, Y, X) of a binary network."""
    return cast("NDArray[np.float32]", torch.sigmoid(logits[0]).numpy())
