"""Building blocks of the networks."""

from __future__ import annotations

from typing import Literal

from torch import nn

Norm = Literal["batch", "none"]
Up = Literal["transposed", "bilinear"]
Activation = Literal["relu", "relu6"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6}


class DoubleConv(nn.Sequential):
    """Twice: 3x3 convolution, normalisation, activation. Keeps height and width.

    Batch normalisation has a bias of its own, so the convolutions before it need none. On export
    it is folded into the convolution, which then is all that runs.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        norm: Norm = "batch",
        bias: bool = False,
        activation: Activation = "relu",
    ) -> None:
        layers: list[nn.Module] = []
        for n in (n_in, n_out):
            layers.append(nn.Conv2d(n, n_out, 3, padding=1, bias=bias or norm == "none"))
            if norm == "batch":
                layers.append(nn.BatchNorm2d(n_out))
            layers.append(ACTIVATIONS[activation](inplace=True))
        super().__init__(*layers)


def up_convolution(n_in: int, n_out: int, up: Up = "transposed") -> nn.Module:
    """Twice the height and width, and other channels.

    Interpolation and a 1x1 convolution may change places; on the coarser grid the convolution
    costs a quarter.
    """
    if up == "transposed":
        return nn.ConvTranspose2d(n_in, n_out, kernel_size=2, stride=2)
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel_size=1), nn.Upsample(scale_factor=2, mode="bilinear")
    )


def reach_below(reach: int, up: Up) -> int:
    """Pixels beyond an aligned window before an up-convolution, of `reach` pixels behind it."""
    return -(-reach // 2) if up == "transposed" else reach // 2 + 1
