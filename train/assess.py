"""What a network reaches on whole frames: to choose the epoch, then thresholds, then the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from engine.results.score.metrics import Score
from train.checkpoint import Checkpoint
from train.choose import Frame, choose, score_frame, score_frames, write_curve
from train.data.frames import LabelledFrame
from train.data.patches import Example, normalised
from train.losses import segmentation_loss
from train.networks import Network
from train.objects import chosen_postprocessing, postprocessing_of
from train.predict import predict_logits, probabilities
from train.scores import Scores
from train.settings import TrainSettings


def validate(
    network: Network, validation: Sequence[tuple[LabelledFrame, Example]], settings: TrainSettings
) -> tuple[float, Scores]:
    """Mean loss and scores of whole frames, at the thresholds that training begins with."""
    network.eval()
    losses, frames = [], []
    for frame, example in validation:
        logits = predict_logits(network, example.image)
        loss = segmentation_loss(logits[None], example.target[None], example.weight[None], settings)
        losses.append(loss.item())
        frames.append(Frame(probabilities(logits), frame.labels, frame.counted))
    return float(np.mean(losses)), score_frames(frames, postprocessing_of(settings))


def choose_defaults(
    best: Checkpoint, frames: Sequence[LabelledFrame], run: Path, device: torch.device
) -> Checkpoint:
    """Give the best state its default thresholds and minimum area, chosen on validation frames."""
    choice, curve = choose(_predicted(best, frames, device), postprocessing_of(best.settings))
    write_curve(run / "threshold.csv", curve)
    chosen = choice.chosen
    scores = named_scores("val", choice.scores)
    return replace(best, chosen=chosen, scores=scores, curve=[point.as_dict() for point in curve])


def score_test(
    best: Checkpoint, frames: Sequence[LabelledFrame], device: torch.device
) -> Checkpoint:
    """Add the scores of the test part: computed once, after everything has been chosen."""
    if not frames:
        return best
    scores = score_frames(_predicted(best, frames, device), chosen_postprocessing(best))
    return replace(best, scores=dict(best.scores) | named_scores("test", scores))


def score_whole(best: Checkpoint, frames: Sequence[LabelledFrame]) -> list[Score]:
    """What the best state, with what was chosen for it, reaches on each frame."""
    rules = chosen_postprocessing(best)
    return [score_frame(frame, rules) for frame in _predicted(best, frames, torch.device("cpu"))]


def _predicted(
    best: Checkpoint, frames: Sequence[LabelledFrame], device: torch.device
) -> list[Frame]:
    """Probabilities and truth of each frame."""
    network = best.build().to(device)
    return [
        Frame(probabilities(predict_logits(network, normalised(f))), f.labels, f.counted)
        for f in frames
    ]


def named_scores(part: str, scores: Scores) -> dict[str, float]:
    """The defined scores of a part, by the names in checkpoints and specs: val_iou, test_f1."""
    return {f"{part}_{name}": value for name, value in scores.defined().items()}
