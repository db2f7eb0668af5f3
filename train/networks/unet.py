"""The U-Net of Ronneberger, Fischer and Brox (MICCAI 2015), https://arxiv.org/abs/1505.04597.

It differs from the paper in one way: convolutions keep the size ("same" padding), so that
probabilities lie on the image's own pixels. All else is an argument; the paper's own choice is
the preset `ronneberger` (train/presets.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from train.networks.base import Network
from train.networks.blocks import Activation, DoubleConv, Norm, Up, reach_below, up_convolution


class UNet(Network):
    """Down `channels` and up again, with the features of each level handed across."""

    def __init__(
        self,
        n_in: int = 1,
        n_out: int = 1,
        channels: Sequence[int] = (16, 32, 64, 128),
        *,
        norm: Norm = "batch",
        conv_bias: bool = False,  # always with norm "none"
        dropout: float = 0.0,  # share of values dropped at the end of the contracting path
        up: Up = "transposed",
        head_kernel: int = 1,  # side of the output layer, odd
        activation: Activation = "relu",
    ) -> None:
        finer, coarser = channels[:-1], channels[1:]
        super().__init__(n_in, stride=2 ** len(finer))
        self.up, self.head_kernel = up, head_kernel
        self.encoders = nn.ModuleList(
            DoubleConv(a, b, norm, conv_bias, activation)
            for a, b in zip((n_in, *finer), channels, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        self.ups = nn.ModuleList(
            up_convolution(b, a, up) for a, b in zip(finer, coarser, strict=True)
        )
        self.decoders = nn.ModuleList(
            DoubleConv(2 * a, a, norm, conv_bias, activation) for a in finer
        )
        self.head = nn.Conv2d(channels[0], n_out, head_kernel, padding=head_kernel // 2)
        if norm == "none":
            self.apply(he_initialised)

    @property
    def receptive_radius(self) -> int:
        """Pixels beyond a stride-aligned window that its logits depend on.

        The longest path goes up all levels and down again, seen from the logits. A block's two
        convolutions reach 2 pixels of their level further: once on the coarsest level, twice on
        the others. Pooling adds nothing to a window that is aligned to the stride.
        """
        levels = len(self.ups)
        reach = self.head_kernel // 2  # beyond the window, in pixels of the level at hand
        for _ in range(levels):
            reach = reach_below(reach + 2, self.up)
        reach += 2
        for _ in range(levels):
            reach = 2 * reach + 2
        return reach

    def logits(self, image: Tensor) -> Tensor:
        """Logits (N, n_out, H, W) of images whose H and W are multiples of the stride."""
        x, skips = image, []
        for encode in self.encoders[:-1]:
            x = encode(x)  # (N, c_l, H / 2^l, W / 2^l)
            skips.append(x)
            x = self.pool(x)  # (N, c_l, H / 2^(l+1), W / 2^(l+1))
        x = self.dropout(self.encoders[-1](x))  # (N, c_L, H / stride, W / stride)
        for up, decode, skip in self._way_up(skips):
            x = up(x)  # (N, c_l, H / 2^l, W / 2^l)
            x = torch.cat([skip, x], dim=1)  # (N, 2 c_l, H / 2^l, W / 2^l)
            x = decode(x)  # (N, c_l, H / 2^l, W / 2^l)
        logits: Tensor = self.head(x)  # (N, n_out, H, W)
        return logits

    def _way_up(self, skips: list[Tensor]) -> list[tuple[nn.Module, nn.Module, Tensor]]:
        return list(zip(self.ups, self.decoders, skips, strict=True))[::-1]


def he_initialised(module: nn.Module) -> None:
    """The paper's initialisation: without normalisation PyTorch's own would let signals fade."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
