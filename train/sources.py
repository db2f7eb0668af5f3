"""Earlier runs and files that a run begins with, looked at before data are read.

Reading data may take minutes. What depends on their channels, or on the data, is found later.
"""

from __future__ import annotations

from pathlib import Path

from train.course import check_resumable
from train.networks import ResNetUNet, TransferUNet, build_network
from train.networks.pretrained import load_pretrained
from train.settings import TrainSettings
from train.start import check_start
from train.teachers import runs_of
from train.transfer import transfer


def check_sources(settings: TrainSettings, run: Path, resume: bool) -> None:
    """UsageError or ModelError where the run cannot begin, or be resumed, with what it names."""
    runs_of(settings)
    if settings.init is not None:
        check_start(settings)
    if resume:
        check_resumable(run, settings)
    else:
        _check_encoder(settings)


def _check_encoder(settings: TrainSettings) -> None:
    """Fill the encoder of a network for grey images, to which any first layer can be adapted."""
    if settings.pretrained is None and settings.transfer is None:
        return
    network = build_network(settings.network(1, settings.n_outputs))
    if settings.pretrained is not None:
        assert isinstance(network, ResNetUNet)
        load_pretrained(network, settings.pretrained)
    if settings.transfer is not None:
        assert isinstance(network, TransferUNet)
        transfer(network, settings.transfer, lambda _: None)
