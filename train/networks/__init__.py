"""Network architectures, and the one place that knows them by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from train.networks.unet import UNet

__all__ = ["NetworkArgs", "UNet", "build_network"]


@dataclass(frozen=True)
class NetworkArgs:
    """All that is needed to build a network again before its weights are loaded."""

    arch: str  # "unet"
    n_in: int  # channels of the image
    n_out: int  # 1: one foreground class; else classes, background first
    channels: tuple[int, ...]  # of each level, finest first

    def as_json(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self) | {"channels": list(self.channels)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> NetworkArgs:
        """The inverse of `as_json`."""
        return cls(**(values | {"channels": tuple(values["channels"])}))


def build_network(args: NetworkArgs) -> UNet:
    """A network with fresh weights from torch's random generator."""
    if args.arch != "unet":
        raise ValueError(f"there is no architecture {args.arch!r}; use unet")
    if args.n_out == 2:
        raise ValueError("two classes are one foreground class: use n_out 1, or 3 and more")
    return UNet(args.n_in, args.n_out, args.channels)
