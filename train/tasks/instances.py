"""Objects of one class, by cores or by the gaps between them: the outputs are sigmoids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.results.pictures.panels import Picture, grey_panel, heat, outlined
from train.choose import Frame, choose, score_frames, write_curve
from train.curves import Epoch, draw_curves
from train.data.frames import LabelledFrame
from train.data.targets import border_weights, cores, cut_apart
from train.losses import segmentation_loss
from train.objects import chosen_rules, label_objects, postprocessing_of
from train.predict import probabilities
from train.scores import Scores
from train.tasks.base import Defaults, Task, Taught

# Neighbours that resemble what was learnt merge less often than others will: a high threshold of
# cores keeps these apart, and may cost this much of the mean of SEG and F1 where scores flatter.
SLACK = 0.005


class Instances(Task[Frame]):
    """The foreground, and with cores these as a second output."""

    row = Epoch

    def targets(self, labels: NDArray[np.int32]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """By the way in which objects are told apart; see `train.data.targets`."""
        settings = self.settings
        if settings.instances == "none":
            target = (labels > 0)[None]
            return target, np.ones(target.shape, dtype=np.float32)
        if settings.instances == "cores":
            core = cores(labels, settings.core_depth)
            gaps = border_weights(core, settings.border_weight, settings.border_sigma)
            return np.stack([labels > 0, core]), np.stack([np.ones_like(gaps), gaps])
        target = cut_apart(labels)[None]
        return target, border_weights(target[0], settings.border_weight, settings.border_sigma)[
            None
        ]

    def loss(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Binary losses of each output."""
        return segmentation_loss(logits, target, weight, self.settings)

    def agreement(self, logits: Tensor, target: Tensor, weight: Tensor) -> tuple[int, int]:
        """Pixels of intersection and union of the foreground, where they count."""
        logits, target, counts = logits[:, 0], target[:, 0], weight[:, 0] > 0
        found, truth = (logits > 0) & counts, (target > 0) & counts
        return int((found & truth).sum()), int((found | truth).sum())

    def judge(self, logits: Tensor, frame: LabelledFrame) -> Frame:
        """Probabilities and truth: thresholds are yet to be chosen."""
        return Frame(probabilities(logits), frame.labels, frame.counted)

    def score(self, frames: Sequence[Frame], chosen: Mapping[str, float] | None = None) -> Scores:
        """IoU, SEG and F1."""
        rules = chosen_rules(self.settings, chosen) if chosen else postprocessing_of(self.settings)
        return score_frames(frames, rules)

    def choose(self, frames: Sequence[Frame], run: Path, flatters: bool) -> Defaults:
        """Thresholds and a minimum area."""
        slack = SLACK if flatters else 0.0
        choice, curve = choose(frames, postprocessing_of(self.settings), slack)
        write_curve(run / "threshold.csv", curve)
        return Defaults(choice.scores, choice.chosen, [point.as_dict() for point in curve])

    def epoch_row(
        self, epoch: int, step: int, taught: Taught, val_loss: float, scores: Scores
    ) -> Epoch:
        """Loss, IoU, and scores of objects."""
        return Epoch(epoch, step, taught.lr, taught.loss, taught.agreement,
                     val_loss, scores.iou, scores.seg, scores.f1, scores.f1_50)  # fmt: skip

    def draw_curves(self, path: Path, history: Sequence[Epoch]) -> None:
        """Loss, IoU and object scores."""
        draw_curves(path, history)

    def panels(self, grey: Picture, truth: NDArray[np.int32], logits: Tensor) -> list[Picture]:
        """Outlines of truth and prediction, and the foreground's probability."""
        probability = probabilities(logits)
        found = label_objects(probability, postprocessing_of(self.settings))
        return [outlined(grey, truth), outlined(grey, found), heat(probability[0], found)]

    def draw_target(self, target: NDArray[np.float32]) -> Picture:
        """Foreground grey, cores white; without cores, the foreground white."""
        return grey_panel(np.rint(255 * target.mean(axis=0)).astype(np.uint8))

    def remarks(self, scores: Mapping[str, float], *, tested: bool) -> list[str]:
        """Where a network is of no use yet, and where F1 says nothing."""
        found = []
        if scores.get("val_f1") == 0:
            found.append(
                "no object of the validation part is found, whatever the threshold: this network "
                "is of no use yet; train for more epochs"
            )
        if tested and "test_f1" not in scores:
            found.append("the test part has no object, and none was found: F1 is not defined")
        return found
