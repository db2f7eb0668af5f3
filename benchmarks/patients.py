"""Dice of heart slices by patient and phase, from a run's checkpoint; no command of its own.

Slices are named `patientNNN_frameMM_zZZ`. The voxels of one patient in one phase are pooled, and
a structure that neither truth nor prediction has there is left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from train.checkpoint import Checkpoint
from train.data.dataset import find_frames, load_part
from train.data.frames import LabelledFrame
from train.data.patches import normalised
from train.data.splits import split_frames
from train.predict import predict_logits
from train.settings import TrainSettings
from train.tasks import Classes
from train.tasks.class_scores import ClassScores

NAME = re.compile(r"(patient\d+)_(frame\d+)_z\d+")
Volume = tuple[str, str]  # patient and phase
Tables = Mapping[Volume, NDArray[np.int64]]


def part_frames(settings: TrainSettings, part: str = "test") -> list[LabelledFrame]:
    """The frames that a run of these settings held back, or with "val" those that it chose by."""
    split = split_frames(find_frames(settings), settings.val_fraction, settings.test_fraction)
    return load_part(getattr(split, part), settings).frames


def confusions(best: Checkpoint, frames: Sequence[LabelledFrame]) -> dict[str, NDArray[np.int64]]:
    """The confusion (K, K) between truth and prediction of each frame, by its name."""
    task, network = Classes(best.settings), best.build()
    return {f.name: task.judge(predict_logits(network, normalised(f)), f) for f in frames}


def by_volume(tables: Mapping[str, NDArray[np.int64]]) -> dict[Volume, NDArray[np.int64]]:
    """The confusions of frames, added up over each patient and phase."""
    pooled: dict[Volume, list[NDArray[np.int64]]] = defaultdict(list)
    for name, table in tables.items():
        match = NAME.search(Path(name).stem)
        if match is None:
            raise SystemExit(f"{name}: is not named patientNNN_frameMM_zZZ")
        pooled[match[1], match[2]].append(table)
    return {volume: np.sum(tables, axis=0) for volume, tables in sorted(pooled.items())}


def dice(tables: Tables, names: Sequence[str]) -> dict[Volume, dict[str, float]]:
    """Dice by structure of each patient and phase; NaN where neither has the structure."""
    return {at: ClassScores(tuple(names), table).dice for at, table in tables.items()}


def means(scores: Mapping[Volume, Mapping[str, float]]) -> dict[str, float]:
    """The mean of each structure over patients and phases, empty ones left out."""
    structures = next(iter(scores.values()))
    return {name: float(np.nanmean([one[name] for one in scores.values()])) for name in structures}
