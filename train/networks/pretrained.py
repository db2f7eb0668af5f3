"""ImageNet weights for the encoder of `ResNetUNet`, for any number of image channels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import ResNet18_Weights

from engine.errors import UsageError
from train.networks.resnet import ResNetUNet

IMAGENET = "imagenet"
WEIGHTS = ResNet18_Weights.IMAGENET1K_V1


def load_pretrained(network: ResNetUNet, source: str) -> str:
    """Load "imagenet", which torchvision downloads, or a file with the same state dict.

    Returns the SHA-256 of the weights. UsageError where they can't be had or are another network's.
    """
    state = _downloaded() if source == IMAGENET else _read(Path(source))
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode() + tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    encoder = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    try:
        encoder["conv1.weight"] = for_channels(encoder["conv1.weight"], network.n_in)
        network.encoder.load_state_dict(encoder)
    except (LookupError, RuntimeError):  # names or shapes
        raise UsageError(
            f"--pretrained {source}: holds no state dict of torchvision's resnet18"
        ) from None
    return digest.hexdigest()


def for_channels(weight: Tensor, n_in: int) -> Tensor:
    """The first convolution (64, 3, 7, 7) for `n_in` channels instead of red, green and blue.

    A grey image is three equal channels, so one channel gets the sum. Others get red, green, blue,
    red ... times 3 / n_in, which keeps the strength of the signal (as timm's `adapt_input_conv`).
    """
    if n_in == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight[:, torch.arange(n_in) % 3] * (3 / n_in)


def _downloaded() -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = WEIGHTS.get_state_dict(progress=False, check_hash=True)
        return state
    except (OSError, RuntimeError) as error:  # no network, no room, or another file than expected
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(
            f"--pretrained {IMAGENET}: {WEIGHTS.url} can't be downloaded ({reason[0]}); download "
            "it elsewhere and give --pretrained FILE"
        ) from None


def _read(path: Path) -> Mapping[str, Tensor]:
    """A state dict, read by torch's loader that runs no code."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"--pretrained {path}: there is no such file") from None
    except Exception:  # torch raises whatever its unpickler met
        state = None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UsageError(f"--pretrained {path}: holds no state dict of torchvision's resnet18")
    return state
