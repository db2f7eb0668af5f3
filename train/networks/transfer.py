"""A U-Net whose contracting path is taken from another: a new way up without normalisation.

The encoder is that of `UNet` with batch normalisation, by the same names; the decoder has dropout
at the end of each level. Levels of the encoder can be held as they are, one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import nn

from train.networks.blocks import Activation, DoubleConv, Up
from train.networks.unet import UNet, he_initialised


class TransferUNet(UNet):
    """`channels` of each level, finest first."""

    def __init__(
        self,
        n_in: int = 1,
        n_out: int = 1,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        *,
        dropout: float = 0.2,  # share of values dropped at the end of each level of the decoder
        up: Up = "transposed",
        activation: Activation = "relu",
    ) -> None:
        super().__init__(
            n_in, n_out, channels, norm="batch", conv_bias=True, up=up, activation=activation
        )
        self.frozen: frozenset[int] = frozenset()  # levels of the encoder, 0 the finest
        self.decoders = nn.ModuleList(
            nn.Sequential(DoubleConv(2 * a, a, "none", activation=activation), nn.Dropout(dropout))
            for a in channels[:-1]
        )
        self.decoders.apply(he_initialised)
        self.ups.apply(he_initialised)

    def freeze(self, levels: Collection[int]) -> None:
        """Hold these levels of the encoder: weights and batch statistics; others learn."""
        self.frozen = frozenset(levels)
        for level, block in enumerate(self.encoders):
            block.requires_grad_(level not in self.frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> TransferUNet:
        """As ever, but frozen levels stay in evaluation mode, which keeps their statistics."""
        super().train(mode)
        for level in self.frozen:
            self.encoders[level].eval()
        return self
