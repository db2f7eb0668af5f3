"""Checkpoints of small networks, from a seed, as training would have left them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from train.checkpoint import Checkpoint, save_checkpoint
from train.networks import Network, build_network
from train.settings import TrainSettings


def settings_of(channels: tuple[int, ...] = (2, 4), **options: Any) -> TrainSettings:
    """Settings of a run; `options` are those of the network."""
    given = {"data": "d", "layout": "pairs", "channels": channels, "class_name": "nucleus"}
    return TrainSettings.model_validate(given | options)


def trained(n_in: int = 1, n_out: int = 1, **options: Any) -> Network:
    """A network with weights and batch statistics that are not those of a fresh one."""
    torch.manual_seed(0)
    network = build_network(settings_of(**options).network(n_in, n_out))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            nn.init.uniform_(module.running_mean, -0.3, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
        elif getattr(module, "bias", None) is not None and not module.bias.any():
            nn.init.uniform_(module.bias, -0.3, 0.3)  # type: ignore[arg-type]
    return network.eval()


def write_run(run: Path, n_in: int = 1, n_out: int = 1, **options: Any) -> Checkpoint:
    """A folder with best.pt."""
    run.mkdir(parents=True, exist_ok=True)
    settings = settings_of(**options)
    checkpoint = Checkpoint(
        network=settings.network(n_in, n_out),
        weights=trained(n_in, n_out, **options).state_dict(),
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
