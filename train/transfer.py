"""An encoder taken from another U-Net: a run or checkpoint of ours, or a Keras file.

Layers are matched by their place (level, first or second) and taken where their shapes agree. A
first convolution for other channels is adapted: grey is the sum over red, green and blue.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engine.errors import UsageError
from train.checkpoint import load_checkpoint
from train.keras_file import Array, ConvValues, NormValues, read_keras
from train.networks import TransferUNet
from train.rows import Note

KERAS = (".h5", ".hdf5", ".keras")
OUR_EPSILON = 1e-5  # PyTorch's, added to variances
APART = 10.0  # times that pixels may differ in scale from those that an encoder was trained on


@torch.no_grad()
def transfer(network: TransferUNet, source: str, note: Note, white: float = 1.0) -> str:
    """Take what fits of the encoder of `source`; returns the SHA-256 of its file.

    `white` is what a white pixel was when `source` was trained, where it is 1 here: the first
    kernel is multiplied by it, so that the encoder computes what it did there. `note` gets a table
    of what was taken and what was not. UsageError where nothing was.
    """
    path = Path(source) / "best.pt" if Path(source).is_dir() else Path(source)
    layers = read_keras(path) if path.suffix in KERAS else read_ours(path)
    taken = 0
    lines = [f"transfer of {len(layers)} convolutions of {source}:"]
    for at in range(max(len(layers), 2 * len(network.encoders))):
        level, number = divmod(at, 2)
        name = f"  level {level}, convolution {number + 1}"
        if level >= len(network.encoders):
            lines.append(f"  {len(layers) - at} more: not taken, they are not of this encoder")
            break
        convolution, norm = list(network.encoders[level].children())[3 * number :][:2]
        assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        if at >= len(layers):
            lines.append(f"{name}: not taken, {source} has none")
            continue
        outcome = _take_convolution(convolution, layers[at], first=at == 0)
        took = outcome.startswith("taken")
        taken += took
        lines.append(f"{name} {_shape(convolution.weight)}: {outcome}")
        outcome = _take_norm(norm, layers[at].norm) if took else "not taken, nor is what is before"
        lines.append(f"{name}, normalisation ({norm.num_features}): {outcome}")
    if white != 1:
        first = next(network.encoders[0].children())
        assert isinstance(first, nn.Conv2d)
        first.weight.mul_(white)
        lines.append(f"  its pixels reached {white:g} where ours reach 1: first kernel multiplied")
    lines.append("  way up and output layer: new")
    if not taken:
        raise UsageError(
            f"--transfer {source}: none of its {len(layers)} convolutions has the shape of this "
            "encoder's; give the --channels that it was trained with"
        )
    for line in lines:
        note(line)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@torch.no_grad()
def doubt_of_scale(network: TransferUNet, images: Tensor) -> str | None:
    """Words where the first normalisation expects pixels of another scale than that of `images`.

    `images` (N, C, Y, X) are normalised patches of the new data. An encoder that is kept as it is
    then hands on constants, and the network finds background everywhere.
    """
    convolution, norm = list(network.encoders[0].children())[:2]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
    if (norm.running_var == 1).all():  # it was not taken
        return None
    images = images.to(norm.running_var.device)
    if network.input_range is not None:
        images = images.clamp(*network.input_range)
    found = convolution(images).var(dim=(0, 2, 3))
    ratio = float((norm.running_var / found.clamp(min=1e-12)).sqrt().median())
    if 1 / APART < ratio < APART:
        return None
    return (
        f"the transferred encoder was trained on pixels that vary {ratio:.3g} times as much as "
        "these, which are normalised to 0 to 1; give --transfer-white with what a white pixel was "
        "there, such as 255, or unfreeze the encoder"
    )


def read_ours(path: Path) -> list[ConvValues]:
    """The convolutions of the encoder of a checkpoint, in order."""
    checkpoint = load_checkpoint(path)
    args, weights = checkpoint.network, checkpoint.weights
    if args.arch not in ("unet", "unet-transfer"):
        raise UsageError(f"--transfer {path}: is a {args.arch}; give the run of a unet")
    start = "inner." if args.shuffle > 1 else ""
    step = 3 if args.norm == "batch" else 2  # modules for each convolution of a block

    def values(level: int, at: int, name: str) -> Array:
        return np.asarray(weights[f"{start}encoders.{level}.{at}.{name}"].float().numpy())

    layers = []
    for level in range(len(args.channels)):
        for at in (0, step):
            has_bias = f"{start}encoders.{level}.{at}.bias" in weights
            norm = None
            if args.norm == "batch":
                norm = NormValues(
                    gamma=values(level, at + 1, "weight"),
                    beta=values(level, at + 1, "bias"),
                    mean=values(level, at + 1, "running_mean"),
                    variance=values(level, at + 1, "running_var"),
                    epsilon=OUR_EPSILON,
                )
            bias = values(level, at, "bias") if has_bias else None
            layers.append(ConvValues(values(level, at, "weight"), bias, norm))
    return layers


def _take_convolution(convolution: nn.Conv2d, values: ConvValues, *, first: bool) -> str:
    kernel = torch.from_numpy(np.ascontiguousarray(values.kernel))
    adapted = _for_channels(kernel, convolution.in_channels) if first else kernel
    if adapted is None or adapted.shape != convolution.weight.shape:
        return f"not taken, it is {_shape(kernel)} there"
    assert convolution.bias is not None
    convolution.weight.copy_(adapted)
    words = "taken" if adapted is kernel else f"taken, adapted from {kernel.shape[1]} channels"
    if values.bias is None:
        convolution.bias.zero_()
        return f"{words}; bias 0, since there is none there"
    convolution.bias.copy_(torch.from_numpy(values.bias))
    return words


def _take_norm(norm: nn.BatchNorm2d, values: NormValues | None) -> str:
    """Variances are changed so that they give the same with PyTorch's epsilon as with theirs."""
    if values is None:
        return "not taken, there is none there"
    if len(values.mean) != norm.num_features:
        return f"not taken, it has {len(values.mean)} channels there"
    assert norm.running_mean is not None and norm.running_var is not None
    norm.weight.copy_(torch.from_numpy(values.gamma))
    norm.bias.copy_(torch.from_numpy(values.beta))
    norm.running_mean.copy_(torch.from_numpy(values.mean))
    norm.running_var.copy_(torch.from_numpy(values.variance) + (values.epsilon - norm.eps))
    return "taken"


def _for_channels(kernel: Tensor, n_in: int) -> Tensor | None:
    """A first convolution for other channels, None where there is no way."""
    if kernel.shape[1] == n_in:
        return kernel
    if n_in == 1:
        return kernel.sum(dim=1, keepdim=True)
    return kernel.repeat(1, n_in, 1, 1) / n_in if kernel.shape[1] == 1 else None


def _shape(weight: Tensor) -> str:
    return "x".join(map(str, weight.shape))
