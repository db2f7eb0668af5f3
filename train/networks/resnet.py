"""A U-Net whose contracting path is torchvision's ResNet-18 (He et al. 2016), stem included.

https://arxiv.org/abs/1512.03385. Each resolution that the ResNet passes through is handed across,
and a decoder leads back to the full one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from train.networks.base import Network
from train.networks.blocks import DoubleConv, Up, reach_below, up_convolution

# Grey mean and deviation of ImageNet's images, whose values lie between 0 and 1 as ours do.
MEAN, DEVIATION = 0.449, 0.226
ACROSS = (0, 64, 64, 128, 256)  # channels handed to each level of the decoder, finest first
DEEPEST = 512


class ResNetUNet(Network):
    """`channels` are the decoder's, of 1/1, 1/2, 1/4, 1/8 and 1/16 of the resolution."""

    def __init__(
        self,
        n_in: int = 1,
        n_out: int = 1,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        *,
        up: Up = "transposed",
    ) -> None:
        super().__init__(n_in, stride=32)
        self.up = up
        self.frozen = False
        self.encoder = resnet18()
        self.encoder.conv1 = nn.Conv2d(n_in, 64, kernel_size=7, stride=2, padding=3, bias=False)
        del self.encoder.avgpool, self.encoder.fc
        coarser = (*channels[1:], DEEPEST)
        self.ups = nn.ModuleList(
            up_convolution(b, a, up) for a, b in zip(channels, coarser, strict=True)
        )
        self.decoders = nn.ModuleList(
            DoubleConv(a + across, a) for a, across in zip(channels, ACROSS, strict=True)
        )
        self.head = nn.Conv2d(channels[0], n_out, kernel_size=1)

    @property
    def receptive_radius(self) -> int:
        """Pixels beyond a stride-aligned window that its logits depend on.

        Seen from the logits: up the decoder, then down the encoder. An operator of stride 2 and
        an odd kernel starts (kernel - 1) / 2 pixels before the window, and ends earlier.
        """
        reach = 0  # beyond the window, in pixels of the level at hand
        for _ in self.decoders:
            reach = reach_below(reach + 2, self.up)
        for _ in ("layer4", "layer3", "layer2"):
            reach = 2 * (reach + 3) + 1  # four 3x3 convolutions, the first of them of stride 2
        reach += 4  # layer1
        reach = 2 * reach + 1  # 3x3 pooling
        return 2 * reach + 3  # 7x7 stem

    def logits(self, image: Tensor) -> Tensor:
        """Logits (N, n_out, H, W) of images whose H and W are multiples of the stride."""
        net = self.encoder
        x = (image - MEAN) / DEVIATION  # (N, n_in, H, W)
        stem = net.relu(net.bn1(net.conv1(x)))  # (N, 64, H / 2, W / 2)
        one = net.layer1(net.maxpool(stem))  # (N, 64, H / 4, W / 4)
        two = net.layer2(one)  # (N, 128, H / 8, W / 8)
        three = net.layer3(two)  # (N, 256, H / 16, W / 16)
        x = net.layer4(three)  # (N, 512, H / 32, W / 32)
        for level, across in ((4, three), (3, two), (2, one), (1, stem), (0, None)):
            x = self.ups[level](x)  # (N, c_l, H / 2^l, W / 2^l)
            if across is not None:
                x = torch.cat([across, x], dim=1)  # (N, ACROSS_l + c_l, H / 2^l, W / 2^l)
            x = self.decoders[level](x)  # (N, c_l, H / 2^l, W / 2^l)
        logits: Tensor = self.head(x)  # (N, n_out, H, W)
        return logits

    def freeze_encoder(self, frozen: bool) -> None:
        """Keep the encoder's weights and batch statistics as they are, or let them learn again."""
        self.frozen = frozen
        self.encoder.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> ResNetUNet:
        """As ever, but a frozen encoder stays in evaluation mode, which keeps its statistics."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self
