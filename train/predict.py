"""Whole frames through a network while it is being trained."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.networks import Network


@torch.inference_mode()
def predict_logits(network: Network, image: Tensor) -> Tensor:
    """Logits (n_out, Y, X) on the CPU of one normalised frame (C, Y, X) of any size, in fp32."""
    device = next(network.parameters()).device
    batch = image[None].to(device, memory_format=torch.channels_last)
    return cast(Tensor, network(batch)[0].float().cpu())


def probabilities(logits: Tensor) -> NDArray[np.float32]:
    """Probabilities (K, Y, X) from the logits of sigmoid outputs."""
    return cast("NDArray[np.float32]", torch.sigmoid(logits).numpy())
