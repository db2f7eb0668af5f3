"""From raw pixel values to what a network sees. Training and the exported graph share it."""

from __future__ import annotations

from torch import Tensor


def normalise(image: Tensor, statistics: Tensor) -> Tensor:
    """(x - low) / (high - low), channel by channel.

    `image` float32 (N, C, H, W) raw values; `statistics` float32 (N, C, 2) low and high of the
    whole frame. Returns float32 (N, C, H, W), 0 at low and 1 at high, not clipped.
    """
    low = statistics[:, :, 0, None, None]  # (N, C, 1, 1)
    high = statistics[:, :, 1, None, None]
    return (image - low) / (high - low)
