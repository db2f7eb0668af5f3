"""What a network reaches on whole frames: to choose the epoch, then its threshold, then the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine.results.score.metrics import score
from train.checkpoint import Checkpoint
from train.choose import choose, score_maps, write_curve
from train.data.frames import LabelledFrame
from train.data.patches import Example, normalised
from train.losses import segmentation_loss
from train.networks import Network
from train.predict import predict_logits, probabilities
from train.scores import Scores, label_objects
from train.settings import TrainSettings


def validate(
    network: Network, validation: Sequence[tuple[LabelledFrame, Example]], settings: TrainSettings
) -> tuple[float, Scores]:
    """Mean loss and scores of whole frames, at probability 0.5."""
    network.eval()
    losses, parts = [], []
    for frame, example in validation:
        logits = predict_logits(network, example.image)
        loss = segmentation_loss(logits[None], example.target[None], example.weight[None], settings)
        losses.append(loss.item())
        found = label_objects((logits[0] >= 0).numpy()[frame.inside])
        parts.append(score(found, frame.labels[frame.inside]))
    return float(np.mean(losses)), Scores.pooled(parts)


def choose_defaults(
    best: Checkpoint, frames: Sequence[LabelledFrame], run: Path, device: torch.device
) -> Checkpoint:
    """Give the best state its default threshold and minimum area, chosen on validation frames."""
    maps, truths = _probability_maps(best, frames, device)
    choice, curve = choose(maps, truths)
    write_curve(run / "threshold.csv", curve)
    chosen = {"threshold": choice.threshold, "min_area": choice.min_area}
    scores = named_scores("val", choice.scores)
    return replace(best, chosen=chosen, scores=scores, curve=[point.as_dict() for point in curve])


def score_test(
    best: Checkpoint, frames: Sequence[LabelledFrame], device: torch.device
) -> Checkpoint:
    """Add the scores of the test part: computed once, after everything has been chosen."""
    if not frames:
        return best
    threshold, min_area = best.chosen["threshold"], int(best.chosen["min_area"])
    maps, truths = _probability_maps(best, frames, device)
    scores = score_maps(maps, truths, threshold, min_area)
    return replace(best, scores=dict(best.scores) | named_scores("test", scores))


def _probability_maps(
    best: Checkpoint, frames: Sequence[LabelledFrame], device: torch.device
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.int32]]]:
    """Foreground probabilities and truth of each frame, inside its margin."""
    network = best.build().to(device)
    maps = [probabilities(predict_logits(network, normalised(f)))[f.inside] for f in frames]
    return maps, [f.labels[f.inside] for f in frames]


def named_scores(part: str, scores: Scores) -> dict[str, float]:
    """The defined scores of a part, by the names in checkpoints and specs: val_iou, test_f1."""
    return {f"{part}_{name}": value for name, value in scores.defined().items()}
