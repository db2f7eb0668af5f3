"""What a network reaches on whole frames: to choose the epoch, then thresholds, then the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from engine.results.score.metrics import Score
from train.checkpoint import Checkpoint
from train.choose import score_frame
from train.data.dataset import TrainingData
from train.data.frames import LabelledFrame
from train.data.patches import Example, normalised
from train.networks import Network
from train.objects import chosen_postprocessing
from train.predict import predict_logits
from train.settings import TrainSettings
from train.tasks import Instances, Task, task_of
from train.tasks.base import Judged, PartScores


def validate(
    network: Network, validation: Sequence[tuple[LabelledFrame, Example]], settings: TrainSettings
) -> tuple[float, PartScores]:
    """Mean loss and scores of whole frames, as training begins to turn outputs into labels."""
    network.eval()
    task = task_of(settings)
    losses, judged = [], []
    for frame, example in validation:
        logits = predict_logits(network, example.image)
        loss = task.loss(logits[None], example.target[None], example.weight[None])
        losses.append(loss.item())
        judged.append(task.judge(logits, frame))
    return float(np.mean(losses)), task.score(judged)


def choose_defaults(
    best: Checkpoint, data: TrainingData, run: Path, device: torch.device
) -> Checkpoint:
    """Give the best state its defaults, such as thresholds, chosen on validation frames."""
    task = task_of(best.settings)
    found = task.choose(_judged(task, best, data.val, device), run, data.split.flatters)
    scores = named_scores("val", found.scores)
    return replace(best, chosen=found.chosen, scores=scores, curve=found.curve)


def score_test(
    best: Checkpoint, frames: Sequence[LabelledFrame], run: Path, device: torch.device
) -> Checkpoint:
    """Add the scores of the test part: computed once, after everything has been chosen."""
    if not frames:
        return best
    task = task_of(best.settings)
    scores = task.score(_judged(task, best, frames, device), best.chosen)
    task.keep("test", scores, run)
    return replace(best, scores=dict(best.scores) | named_scores("test", scores))


def score_whole(best: Checkpoint, frames: Sequence[LabelledFrame]) -> list[Score]:
    """What the best state, with what was chosen for it, reaches on each frame; of objects."""
    rules, task = chosen_postprocessing(best), Instances(best.settings)
    return [score_frame(f, rules) for f in _judged(task, best, frames, torch.device("cpu"))]


def _judged(
    task: Task[Judged], best: Checkpoint, frames: Sequence[LabelledFrame], device: torch.device
) -> list[Judged]:
    """What scores need of each frame."""
    network = best.build().to(device)
    return [task.judge(predict_logits(network, normalised(f)), f) for f in frames]


def named_scores(part: str, scores: PartScores) -> dict[str, float]:
    """The defined scores of a part, by the names in checkpoints and specs: val_iou, test_f1."""
    return {f"{part}_{name}": value for name, value in scores.defined().items()}
