"""The U-Net of Ronneberger, Fischer and Brox (MICCAI 2015), https://arxiv.org/abs/1505.04597.

It differs from the paper in three ways: convolutions keep the size ("same" padding), so that
probabilities lie on the image's own pixels; each convolution is followed by batch normalisation;
and the number of levels and their channels are free (the paper's: 64, 128, 256, 512, 1024).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from train.networks.blocks import DoubleConv


class UNet(nn.Module):
    """Maps images (N, n_in, H, W) to logits (N, n_out, H, W).

    H and W are multiples of `stride`; whoever calls pads (the engine does by reflection, at the
    bottom and the right, once per frame). Other sizes raise ValueError with the size to use.
    """

    def __init__(
        self, n_in: int = 1, n_out: int = 1, channels: Sequence[int] = (16, 32, 64, 128)
    ) -> None:
        super().__init__()
        finer, coarser = channels[:-1], channels[1:]
        self.n_in = n_in
        self.stride = 2 ** len(finer)
        self.encoders = nn.ModuleList(
            DoubleConv(a, b) for a, b in zip((n_in, *finer), channels, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(b, a, kernel_size=2, stride=2)
            for a, b in zip(finer, coarser, strict=True)
        )
        self.decoders = nn.ModuleList(DoubleConv(2 * a, a) for a in finer)
        self.head = nn.Conv2d(channels[0], n_out, kernel_size=1)

    @property
    def receptive_radius(self) -> int:
        """Pixels beyond a stride-aligned window that its logits depend on.

        The longest path goes down all levels and up again. On level l a pixel is 2^l image
        pixels wide and the block's two convolutions reach 2 of them further: once on the coarsest
        level, twice (down and up) on the others. Pooling and transposed convolutions of 2x2 add
        nothing to a window that is aligned to the stride, except that the way up rounds
        the reach to whole coarse pixels.
        """
        reach = 0  # beyond the window, in pixels of the level at hand
        levels = len(self.ups)
        for _ in range(levels):
            reach = -(-(reach + 2) // 2)  # the block's 2 px, then coarser pixels, rounded up
        reach += 2
        for _ in range(levels):
            reach = 2 * reach + 2
        return reach

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, n_out, H, W) of normalised images (N, n_in, H, W)."""
        self._check(image)
        x, skips = image, []
        for encode in self.encoders[:-1]:
            x = encode(x)  # (N, c_l, H / 2^l, W / 2^l)
            skips.append(x)
            x = self.pool(x)  # (N, c_l, H / 2^(l+1), W / 2^(l+1))
        x = self.encoders[-1](x)  # (N, c_L, H / stride, W / stride)
        for up, decode, skip in self._way_up(skips):
            x = up(x)  # (N, c_l, H / 2^l, W / 2^l)
            x = torch.cat([skip, x], dim=1)  # (N, 2 c_l, H / 2^l, W / 2^l)
            x = decode(x)  # (N, c_l, H / 2^l, W / 2^l)
        logits: Tensor = self.head(x)  # (N, n_out, H, W)
        return logits

    def _way_up(self, skips: list[Tensor]) -> list[tuple[nn.Module, nn.Module, Tensor]]:
        return list(zip(self.ups, self.decoders, skips, strict=True))[::-1]

    def _check(self, image: Tensor) -> None:
        n_in, height, width = image.shape[1:]
        if n_in != self.n_in:
            raise ValueError(f"the network takes {self.n_in} channels, not {n_in}")
        # While exporting, sizes are symbols and the check is the engine's.
        if torch.compiler.is_exporting():
            return
        if height % self.stride or width % self.stride:
            fits = [-(-side // self.stride) * self.stride for side in (height, width)]
            raise ValueError(
                f"the network takes multiples of {self.stride} px, not {height}x{width}; "
                f"pad to {fits[0]}x{fits[1]}"
            )
