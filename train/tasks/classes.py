"""The class of every pixel: a softmax over the classes of a palette, background first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.labels.classes import class_map, each_class
from engine.results.pictures.panels import Picture, class_mixture, filled
from engine.results.result import LabelClass
from train.data.frames import LabelledFrame
from train.settings import TrainSettings
from train.tasks.base import Defaults, Task, Taught, Watch
from train.tasks.class_curves import draw_class_curves
from train.tasks.class_losses import class_cross_entropy, class_dice_loss, class_logits
from train.tasks.class_scores import ClassEpoch, ClassScores, confusion

HALF = 0.5  # of the probability of the second of two classes: the more probable one wins


class Classes(Task[NDArray[np.int64]]):
    """Frames are judged by the confusion between their classes, (K, K)."""

    row = ClassEpoch
    learnt_name = "mean Dice"

    def __init__(self, settings: TrainSettings) -> None:
        super().__init__(settings)
        assert settings.palette is not None
        self.names = settings.palette.names
        self.label_classes = tuple(
            LabelClass(at, one.name, one.rgb) for at, one in enumerate(settings.classes)
        )

    def settled(self, frames: Sequence[LabelledFrame]) -> TrainSettings:
        """With numbers for class weights that are "auto"."""
        if self.settings.class_weights != "auto":
            return self.settings
        weights = automatic_weights(frames, len(self.names))
        return self.settings.model_copy(update={"class_weights": weights})

    def targets(self, labels: NDArray[np.int32]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """A plane for each class, and the weights of the pixels' classes."""
        target = labels == np.arange(len(self.names))[:, None, None]
        given = self.settings.class_weights
        if not isinstance(given, tuple):
            return target, np.ones((1, *labels.shape), dtype=np.float32)
        return target, np.array(given, dtype=np.float32)[labels][None]

    def loss(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Cross entropy, soft Dice, or both."""
        logits = class_logits(logits.float())
        if self.settings.loss == "dice":
            return class_dice_loss(logits, target, weight)
        cross = class_cross_entropy(logits, target, weight)
        if self.settings.loss == "ce":
            return cross
        return cross + self.settings.dice * class_dice_loss(logits, target, weight)

    def agreement(self, logits: Tensor, target: Tensor, weight: Tensor) -> tuple[int, int]:
        """Right pixels, and those that count."""
        counts = weight[:, 0] > 0
        right = class_logits(logits).argmax(dim=1) == target.argmax(dim=1)
        return int((right & counts).sum()), int(counts.sum())

    def learnt(self, logits: Tensor, target: Tensor, weight: Tensor) -> float:
        """The mean Dice of the classes but background that truth or prediction have."""
        found = class_logits(logits).argmax(dim=1).cpu().numpy()
        truth, counted = target.argmax(dim=1).cpu().numpy(), (weight[:, 0] > 0).cpu().numpy()
        return ClassScores(self.names, confusion(truth, found, counted, len(self.names))).rank

    def judge(self, logits: Tensor, frame: LabelledFrame) -> NDArray[np.int64]:
        """The confusion between the classes of truth and prediction."""
        found = class_map(class_probabilities(logits), HALF)
        return confusion(frame.labels, found, frame.counted, len(self.names))

    def score(
        self, frames: Sequence[NDArray[np.int64]], chosen: Mapping[str, float] | None = None
    ) -> ClassScores:
        """Of all pixels together."""
        return ClassScores(self.names, np.sum(frames, axis=0))

    def choose(self, frames: Sequence[NDArray[np.int64]], run: Path, flatters: bool) -> Defaults:
        """There is no threshold: the most probable class wins."""
        scores = self.score(frames)
        self.keep("val", scores, run)
        return Defaults(scores, {})

    def keep(self, part: str, scores: ClassScores, run: Path) -> None:
        """The confusion between classes, as `confusion-val.csv` or `confusion-test.csv`."""
        scores.write(run / f"confusion-{part}.csv")

    def epoch_row(
        self, epoch: int, step: int, taught: Taught, val_loss: float, scores: ClassScores
    ) -> ClassEpoch:
        """Loss, accuracy, and scores by class."""
        return ClassEpoch(
            epoch, step, taught.lr, taught.loss, taught.agreement,
            val_loss, scores.accuracy, scores.mean_dice, scores.dice, scores.iou,
        )  # fmt: skip

    def draw_curves(self, path: Path, history: Sequence[ClassEpoch]) -> None:
        """Loss, accuracy, and Dice by class in its colour."""
        draw_class_curves(path, history, self.label_classes)

    def panels(self, grey: Picture, truth: NDArray[np.int32], logits: Tensor) -> list[Picture]:
        """Truth and prediction in the classes' colours, and these mixed by probability."""
        probability = class_probabilities(logits)
        found = class_map(probability, HALF)
        mixture = class_mixture(each_class(probability), self.label_classes, found)
        return [
            filled(grey, truth, self.label_classes),
            filled(grey, found, self.label_classes),
            mixture,
        ]

    def draw_target(self, target: NDArray[np.float32]) -> Picture:
        """Classes in their colours."""
        rgb = np.array([one.rgb for one in self.label_classes], dtype=np.uint8)
        picture: Picture = rgb[target.argmax(axis=0)]
        return picture

    def watch(self) -> Watch:
        """For predictions that are all background, or lack a class."""
        return Collapse()


class Collapse(Watch):
    """Names predictions that leave out classes of the truth, and says when they are found again.

    A high accuracy hides this: most of an image is background.
    """

    def __init__(self) -> None:
        self._lacking: tuple[str, ...] = ()

    def see(self, epoch: int, scores: ClassScores) -> str | None:
        """Words where what is lacking has changed."""
        lacking = tuple(scores.unused)
        if lacking == self._lacking:
            return None
        self._lacking = lacking
        if not lacking:
            return f"after epoch {epoch}, every class of the validation truth is found"
        listed = ", ".join(lacking)
        if scores.is_all_background:
            return (
                f"after epoch {epoch}, the network finds nothing but background, though the truth "
                f"has {listed} (accuracy {scores.accuracy:.3f}, since most pixels are background); "
                "if this lasts: check that images and masks fit (--preview), that transferred "
                "weights were trained on pixels of the same scale, lower --lr, and give "
                "--class-weights auto"
            )
        return (
            f"after epoch {epoch}, the network never finds {listed}, which the truth has; if this "
            "lasts: train longer, give --class-weights auto, or check that enough training frames "
            "show it"
        )


def automatic_weights(frames: Sequence[LabelledFrame], n_classes: int) -> tuple[float, ...]:
    """A weight for each class: the inverse root of its share of pixels, background's being 1.

    The root keeps a class of a few pixels from outweighing all else. A class without pixels has
    the weight of the rarest.
    """
    counts = np.zeros(n_classes)
    for frame in frames:
        counts += np.bincount(frame.labels[frame.counted], minlength=n_classes)
    rarest = counts[counts > 0].min()
    weights = np.sqrt(max(counts[0], rarest) / np.maximum(counts, rarest))
    return tuple(round(float(weight), 4) for weight in weights)


def class_probabilities(logits: Tensor) -> NDArray[np.float32]:
    """Probabilities (K, Y, X) as an exported model has them: of two classes, the second's alone."""
    found = torch.sigmoid(logits) if len(logits) == 1 else torch.softmax(logits, dim=0)
    return np.asarray(found.numpy(), dtype=np.float32)
