"""Learning from earlier runs beside the truth: what they give is the target in part.

    target = (1 - share) * truth + share * mean of the teachers' probabilities

After Hinton et al. 2015, https://arxiv.org/abs/1503.02531. Several networks, and one network on an
image and its mirror images, err in different places: their mean is better than each, and a network
that learns it comes closer to it than one that has only the truth, which has errors of its own.
Each teacher sees another mirror image of a batch at each step; over steps that is the mean of all.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import UsageError, plural
from train.checkpoint import Checkpoint, load_checkpoint
from train.data.dataset import TrainingData
from train.data.splits import Split
from train.networks import Network
from train.optimise import Arithmetic
from train.settings import TrainSettings

MIRRORS: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))  # axes of (N, C, Y, X)
SAME = ("instances", "core_depth", "normalisation")  # what makes outputs mean the same


@dataclass(frozen=True)
class Teachers:
    """Networks of earlier runs that have learnt the same outputs."""

    networks: tuple[Network, ...]
    share: float
    arithmetic: Arithmetic

    @classmethod
    def of(cls, settings: TrainSettings, data: TrainingData, arithmetic: Arithmetic) -> Teachers:
        """Those of `settings`; UsageError where one has learnt something else, or what `data` hold
        back: it would tell.
        """
        runs = runs_of(settings)
        for folder, run in runs.items():
            _check_channels(folder, run, data.n_channels)
            _check_split(folder, run, settings, data.split)
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


def teachers_hash(folders: tuple[str, ...]) -> str:
    """SHA-256 of the weights of all of them; "" of none."""
    if not folders:
        return ""
    digest = hashlib.sha256()
    for folder in folders:
        digest.update(hashlib.sha256((Path(folder) / "best.pt").read_bytes()).digest())
    return digest.hexdigest()


def _check_outputs(folder: str, run: Checkpoint, settings: TrainSettings) -> None:
    """UsageError where the outputs of an earlier run mean something else."""
    if run.settings.classes:
        raise UsageError(f"--teacher {folder}: has learnt classes, and this run learns objects")
    for name in SAME:
        theirs, ours = getattr(run.settings, name), getattr(settings, name)
        if theirs != ours:
            raise UsageError(
                f"--teacher {folder}: was trained with {name} {theirs}, and this run has {ours}"
            )


def _check_channels(folder: str, run: Checkpoint, n_in: int) -> None:
    """UsageError where an earlier run takes other images."""
    if run.network.n_in != n_in:
        raise UsageError(
            f"--teacher {folder}: takes {run.network.n_in} channels, and these images have {n_in}"
        )


def _check_split(folder: str, run: Checkpoint, settings: TrainSettings, split: Split) -> None:
    """UsageError where an earlier run on the same folder was taught by what is held back here."""
    if Path(run.settings.data).resolve().name != Path(settings.data).resolve().name:
        return
    path = Path(folder) / "split.json"
    try:
        parts = json.loads(path.read_text())
        taught, chose = (set(parts[name]["frames"]) for name in ("train", "val"))
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"--teacher {folder}: {path.name} is gone or damaged, which says what it has learnt; "
            "copy the whole folder of that run"
        ) from None
    known = [f.name for f in split.val if f.name in taught]
    known += [f.name for f in split.test if f.name in taught | chose]
    if known:
        raise UsageError(
            f"--teacher {folder}: has learnt {plural(len(known), 'image')} that this run holds "
            f"back (the first is {known[0]}); give both the same data and fractions"
        )
