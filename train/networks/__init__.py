"""Network architectures, and the one place that knows them by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from train.networks.base import Network
from train.networks.blocks import Activation, Norm, Up
from train.networks.resnet import ResNetUNet
from train.networks.shuffled import Shuffled
from train.networks.transfer import TransferUNet
from train.networks.unet import UNet

__all__ = [
    "Activation",
    "Network",
    "NetworkArgs",
    "Norm",
    "ResNetUNet",
    "Shuffled",
    "TransferUNet",
    "UNet",
    "Up",
    "build_network",
    "n_statistics",
    "n_weights",
]


@dataclass(frozen=True)
class NetworkArgs:
    """All that is needed to build a network again before its weights are loaded."""

    arch: str  # "unet", "unet-resnet18" or "unet-transfer"
    n_in: int  # channels of the image
    n_out: int  # channels of the logits
    channels: tuple[int, ...]  # of each level (with resnet18: of the decoder), finest first
    # Checkpoints from before these were arguments lack them: the defaults are what was built then.
    norm: Norm = "batch"  # after each convolution
    conv_bias: bool = False  # whether convolutions before a batch normalisation have biases
    dropout: float = 0.0  # share of values dropped at the end of the contracting path
    up: Up = "transposed"  # how a level becomes twice as fine
    head_kernel: int = 1  # px; side of the output layer
    shuffle: int = 1  # px of the image along one px of the finest level
    activation: Activation = "relu"  # relu6 ends at 6, which 8-bit numbers like
    input_range: tuple[float, float] | None = None  # to which normalised pixels are clipped

    def as_json(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        clip = None if self.input_range is None else list(self.input_range)
        return asdict(self) | {"channels": list(self.channels), "input_range": clip}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> NetworkArgs:
        """The inverse of `as_json`."""
        clip = values.get("input_range")
        given = {"channels": tuple(values["channels"]), "input_range": clip and tuple(clip)}
        return cls(**(values | given))


def build_network(args: NetworkArgs) -> Network:
    """A network with fresh weights from torch's random generator."""
    network = _architecture(args)
    network.input_range = args.input_range
    return network


def _architecture(args: NetworkArgs) -> Network:
    if args.arch == "unet-resnet18":
        return ResNetUNet(args.n_in, args.n_out, args.channels, up=args.up)
    if args.arch == "unet-transfer":
        return TransferUNet(
            args.n_in,
            args.n_out,
            args.channels,
            dropout=args.dropout,
            up=args.up,
            activation=args.activation,
        )
    if args.arch != "unet":
        raise ValueError(
            f"there is no architecture {args.arch!r}; use unet, unet-resnet18 or unet-transfer"
        )
    if args.shuffle > 1:
        blocks = args.shuffle**2
        inner = replace(args, n_in=args.n_in * blocks, n_out=args.n_out * blocks, shuffle=1)
        return Shuffled(_architecture(inner), args.shuffle)
    return UNet(
        args.n_in,
        args.n_out,
        args.channels,
        norm=args.norm,
        conv_bias=args.conv_bias,
        dropout=args.dropout,
        up=args.up,
        head_kernel=args.head_kernel,
        activation=args.activation,
    )


def n_weights(network: Network) -> int:
    """Number of values that are learnt."""
    return sum(p.numel() for p in network.parameters())


def n_statistics(network: Network) -> int:
    """Number of values that are tracked, not learnt: means and variances of normalisations.

    Keras counts them as parameters that are not trainable.
    """
    return sum(b.numel() for b in network.buffers() if b.is_floating_point())
