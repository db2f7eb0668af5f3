"""Which part of an encoder is held as it is in an epoch: its weights and its batch statistics."""

from __future__ import annotations

from train.networks import Network, ResNetUNet, TransferUNet
from train.settings import TrainSettings


def freeze(network: Network, epoch: int, settings: TrainSettings) -> None:
    """Hold what `settings` say for an epoch, counted from 1, and let the rest learn."""
    if isinstance(network, ResNetUNet):
        network.freeze_encoder(epoch <= settings.freeze_encoder)
    elif isinstance(network, TransferUNet):
        network.freeze(frozen_levels(epoch, settings))


def frozen_levels(epoch: int, settings: TrainSettings) -> set[int]:
    """Levels of the encoder of unet-transfer that are held in an epoch, counted from 1."""
    levels = set(range(len(settings.channels)))
    if settings.unfreeze:
        return levels - {level for start, level in settings.unfreeze if start <= epoch}
    return levels if epoch <= settings.freeze_encoder else set()
