"""Checkpoints of small networks, from a seed, as training would have left them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from train.checkpoint import Checkpoint, save_checkpoint
from train.networks import NetworkArgs, UNet, build_network
from train.settings import TrainSettings


def trained(n_in: int = 1, n_out: int = 1, channels: tuple[int, ...] = (2, 4)) -> UNet:
    """A network with weights and batch statistics that are not those of a fresh one."""
    torch.manual_seed(0)
    network = build_network(NetworkArgs("unet", n_in, n_out, channels))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            nn.init.uniform_(module.running_mean, -0.3, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return network.eval()


def write_run(
    run: Path, n_in: int = 1, n_out: int = 1, channels: tuple[int, ...] = (2, 4)
) -> Checkpoint:
    """A folder with best.pt."""
    run.mkdir(parents=True, exist_ok=True)
    settings = TrainSettings(data="d", layout="pairs", channels=channels, class_name="nucleus")
    checkpoint = Checkpoint(
        network=NetworkArgs("unet", n_in, n_out, channels),
        weights=trained(n_in, n_out, channels).state_dict(),
        settings=settings,
        epoch=3,
        step=30,
        best_score=0.7,
        scores={"val_iou": 0.81234, "val_f1": 0.7},
        hashes={"data": "d" * 64, "code": "c" * 64, "settings": "5" * 64},
        chosen={"threshold": 0.55, "min_area": 20},
        curve=[{"threshold": 0.55, "min_area": 20, "iou": 0.8, "f1": 0.7, "f1_50": 0.75}],
        trained_on="7 frames of d",
    )
    save_checkpoint(run / "best.pt", checkpoint)
    return checkpoint
