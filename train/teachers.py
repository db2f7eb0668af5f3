"""Learning from earlier runs beside the truth: what they give is the target in part.

    target = (1 - share) * truth + share * mean of the teachers' probabilities

After Hinton et al. 2015, https://arxiv.org/abs/1503.02531. Several networks, and one network on an
image and its mirror images, err in different places: their mean is better than each, and a network
that learns it comes closer to it than one that has only the truth, which has errors of its own.
Each teacher sees another mirror image of a batch at each step; over steps that is the mean of all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import UsageError, plural
from train.checkpoint import Checkpoint, load_checkpoint
from train.data.dataset import TrainingData
from train.networks import Network
from train.optimise import Arithmetic
from train.settings import TrainSettings

MIRRORS: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))  # axes of (N, C, Y, X)
SAME = {"instances": "--instances", "core_depth": "--core-depth", "normalisation": "--window"}


@dataclass(frozen=True)
class Teachers:
    """Networks of earlier runs that have learnt the same outputs."""

    networks: tuple[Network, ...]
    share: float
    arithmetic: Arithmetic

    @classmethod
    def of(cls, settings: TrainSettings, data: TrainingData, arithmetic: Arithmetic) -> Teachers:
        """Those of `settings`; UsageError where one has learnt other outputs, or was trained on
        images that `data` hold back.
        """
        runs = runs_of(settings)
        for folder, run in runs.items():
            _check_channels(folder, run, data.n_channels)
            _check_seen(folder, data)
        networks = (run.build().to(arithmetic.device) for run in runs.values())
        placed = tuple(network.to(memory_format=torch.channels_last) for network in networks)
        return cls(placed, settings.teacher_share, arithmetic)

    @torch.no_grad()
    def target(self, image: Tensor, target: Tensor, step: int) -> Tensor:
        """What is to be learnt from images (N, C, Y, X) whose truth is `target` (N, K, Y, X)."""
        if not self.networks:
            return target
        given = torch.zeros_like(target)
        for number, network in enumerate(self.networks):
            axes = MIRRORS[(step + number) % len(MIRRORS)]
            seen = image.flip(axes).contiguous(memory_format=torch.channels_last)
            with self.arithmetic.autocast():
                logits = network(seen)
            given += torch.sigmoid(logits.float()).flip(axes)
        return torch.lerp(target, given / len(self.networks), self.share)


def runs_of(settings: TrainSettings) -> dict[str, Checkpoint]:
    """The best states of the teachers by folder; UsageError where one has learnt something else."""
    runs = {folder: load_checkpoint(Path(folder) / "best.pt") for folder in settings.teachers}
    for folder, run in runs.items():
        _check_outputs(folder, run, settings)
    return runs


def _check_outputs(folder: str, run: Checkpoint, settings: TrainSettings) -> None:
    """UsageError where the outputs of an earlier run mean something else."""
    if run.settings.classes:
        raise UsageError(f"--teacher {folder}: has learnt classes, and this run learns objects")
    for name, option in SAME.items():
        theirs, ours = getattr(run.settings, name), getattr(settings, name)
        if theirs == ours or (name == "core_depth" and settings.instances != "cores"):
            continue
        values = "" if name == "normalisation" else f" ({theirs}, here {ours})"
        raise UsageError(
            f"--teacher {folder}: was trained with another {option}{values}; give the same"
        )


def _check_channels(folder: str, run: Checkpoint, n_in: int) -> None:
    """UsageError where an earlier run takes other images."""
    if run.network.n_in != n_in:
        raise UsageError(
            f"--teacher {folder}: takes {run.network.n_in} channels, and these images have {n_in}"
        )


def _check_seen(folder: str, data: TrainingData) -> None:
    """UsageError where an earlier run has seen, by its pixels, an image that is held back here."""
    path = Path(folder) / "split.json"
    try:
        parts = json.loads(path.read_text())
        taught, chose = (set(parts[name]["sha256"]) for name in ("train", "val"))
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"--teacher {folder}: its {path.name} does not tell which images it has seen (it is "
            "gone, damaged, or of an earlier version); copy the whole folder of that run, or train "
            "it again"
        ) from None
    ours = {data.images[f.name] for f in data.split.train if f.name in data.images}
    held = [(f.name, taught) for f in data.split.val]
    held += [(f.name, taught | chose) for f in data.split.test]
    known = [name for name, seen in held if data.images.get(name) in seen - ours]
    if known:
        raise UsageError(
            f"--teacher {folder}: has learnt {plural(len(known), 'image')} that this run holds "
            f"back (the first is {known[0]}); give both the same data and fractions"
        )
