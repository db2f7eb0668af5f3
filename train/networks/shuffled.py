"""A network at a fraction of the resolution: pixels become channels, and channels pixels again.

After Shi et al. (CVPR 2016), https://arxiv.org/abs/1609.05158, whose sub-pixel convolution is the
way back. By 2, the network between has a quarter of the pixels, and so a quarter of the arithmetic.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from train.networks.base import Network


class Shuffled(Network):
    """A network behind a pixel-unshuffle by `factor` and in front of a pixel-shuffle.

    `inner` takes n_in * factor^2 channels and gives n_out * factor^2. ValueError where it can't.
    """

    def __init__(self, inner: Network, factor: int) -> None:
        if inner.n_in % factor**2:
            raise ValueError(
                f"a shuffle by {factor} needs a network for a multiple of {factor**2} channels, "
                f"not {inner.n_in}"
            )
        super().__init__(inner.n_in // factor**2, stride=factor * inner.stride)
        self.inner = inner
        self.factor = factor

    @property
    def receptive_radius(self) -> int:
        """Pixels beyond a stride-aligned window that its logits depend on."""
        return self.factor * self.inner.receptive_radius

    def logits(self, image: Tensor) -> Tensor:
        """Logits (N, n_out, H, W) of images whose H and W are multiples of the stride."""
        x = functional.pixel_unshuffle(image, self.factor)  # (N, n_in f^2, H / f, W / f)
        x = self.inner.logits(x)  # (N, n_out f^2, H / f, W / f)
        return functional.pixel_shuffle(x, self.factor)  # (N, n_out, H, W)
