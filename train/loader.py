"""Batches of a whole run, prepared by worker processes while the network learns from earlier ones.

The workers live as long as the run: they start the next epoch's patches while the last one is
being validated. A patch follows from seed, epoch and index alone, so neither the number of workers
nor a resumed run changes what is learnt.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch.utils.data import ConcatDataset, DataLoader

from train.data.dataset import TrainingData
from train.data.patches import Example, Patches, shares_by_area
from train.settings import TrainSettings


def batches(data: TrainingData, settings: TrainSettings, first_epoch: int = 0) -> Iterator[Example]:
    """Every batch from an epoch on: image, target and weight (N, ., Y, X), and frames (N,)."""
    count = settings.steps_per_epoch * settings.accumulate * settings.batch  # an epoch
    shares = shares_by_area(data.train, data.is_synthetic, settings.synthetic_share)
    epochs = [
        Patches(data.train, shares, settings, epoch, count)
        for epoch in range(first_epoch, settings.epochs)
    ]
    # A generator of its own: starting workers draws a seed, which would shift the network's dropout
    # in a run that is resumed.
    own = torch.Generator()
    loader: DataLoader[Example] = DataLoader(
        ConcatDataset(epochs), settings.batch, num_workers=settings.workers, generator=own
    )
    yield from loader


class Stopwatch:
    """Seconds spent in its contexts, all together."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._begin = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.monotonic() - self._begin
