"""What all networks have in common: any size goes in, and logits of that size come out."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """Maps images (N, n_in, H, W) of any size to logits (N, n_out, H, W).

    `forward` reflects the image at the bottom and the right up to multiples of `stride`, as the
    engine does, and crops the logits: an architecture's `logits` only meets sizes that fit. It
    also clips what the network sees to `input_range`: a few very bright objects would stretch the
    range of every activation, and cost an 8-bit network the precision that all others need.
    """

    input_range: tuple[float, float] | None = None  # of normalised pixels; None: any

    def __init__(self, n_in: int, stride: int) -> None:
        super().__init__()
        self.n_in = n_in
        self.stride = stride  # px

    @property
    def receptive_radius(self) -> int:
        """Pixels beyond a stride-aligned window that its logits depend on."""
        raise NotImplementedError

    def logits(self, image: Tensor) -> Tensor:
        """Logits (N, n_out, H, W) of images whose H and W are multiples of the stride."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, n_out, H, W) of normalised images (N, n_in, H, W)."""
        n_in, height, width = image.shape[1:]
        if n_in != self.n_in:
            raise ValueError(f"the network takes {self.n_in} channels, not {n_in}")
        if self.input_range is not None:
            image = image.clamp(*self.input_range)
        if torch.compiler.is_exporting():  # sizes are symbols, and padding is the engine's
            return self.logits(image)
        return self.logits(pad_to_stride(image, self.stride))[:, :, :height, :width]


def pad_to_stride(image: Tensor, stride: int) -> Tensor:
    """Reflect (N, C, H, W) at the bottom and the right up to multiples of `stride`, as the engine.

    Frames smaller than the margin itself are reflected to and fro.
    """
    height, width = image.shape[2:]
    if height % stride == 0 and width % stride == 0:
        return image
    for axis, size in ((2, height), (3, width)):
        period = max(2 * size - 2, 1)
        index = torch.arange(-(-size // stride) * stride, device=image.device) % period
        index = torch.where(index < size, index, period - index)
        image = image.index_select(axis, index)  # keeps channels last, which indexing doesn't
    return image
