"""The questions that training asks of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.results.pictures.panels import Picture
from engine.results.result import LabelClass
from train.data.frames import LabelledFrame
from train.rows import EpochRow
from train.settings import TrainSettings

Judged = TypeVar("Judged")  # what is kept of a predicted frame until all are scored


class PartScores(Protocol):
    """Scores of a part of the split."""

    @property
    def rank(self) -> float:
        """What the best epoch is chosen by; higher is better."""

    def defined(self) -> dict[str, float]:
        """The scores by name, without those that nothing defines."""


@dataclass(frozen=True)
class Taught:
    """Figures of the steps of one epoch."""

    lr: float  # of the last step
    loss: float  # mean over batches
    agreement: float  # foreground IoU, or with classes the share of right pixels, over all patches
    waited: float  # seconds for patches


@dataclass(frozen=True)
class Defaults:
    """What was chosen on the validation part for a finished network."""

    scores: PartScores  # with it
    chosen: Mapping[str, float]  # by the names of `Postprocessing`; empty where nothing is chosen
    curve: Sequence[Mapping[str, float]] = ()  # scores of all that was tried


class Watch:
    """Says, once, what is wrong with the predictions of an epoch. Of objects, nothing."""

    def see(self, epoch: int, scores: Any) -> str | None:
        """Words where the state has changed after an epoch, counted from 1."""
        return None


class Task(ABC, Generic[Judged]):
    """Targets, loss, validation, scores and pictures."""

    row: type[EpochRow]  # of history.csv
    learnt_name = "IoU"  # what `learnt` is
    label_classes: tuple[LabelClass, ...] = ()  # whose colours pictures have; none: by object

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings

    def settled(self, frames: Sequence[LabelledFrame]) -> TrainSettings:
        """The settings, with numbers for what follows from the training frames."""
        return self.settings

    @abstractmethod
    def targets(self, labels: NDArray[np.int32]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Target (K, Y, X) and weights, (K, Y, X) or (1, Y, X), of labels (Y, X)."""

    @abstractmethod
    def loss(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """What is minimised, a scalar in fp32, of tensors (N, ., Y, X)."""

    @abstractmethod
    def agreement(self, logits: Tensor, target: Tensor, weight: Tensor) -> tuple[int, int]:
        """Pixels in which a batch agrees, and of how many: see `Taught.agreement`."""

    def learnt(self, logits: Tensor, target: Tensor, weight: Tensor) -> float:
        """How well one sample is known by heart, 0..1: by the foreground's IoU, or by classes."""
        agree, of = self.agreement(logits, target, weight)
        return agree / of

    @abstractmethod
    def judge(self, logits: Tensor, frame: LabelledFrame) -> Judged:
        """What scores need of a frame's logits (n_out, Y, X)."""

    @abstractmethod
    def score(
        self, frames: Sequence[Judged], chosen: Mapping[str, float] | None = None
    ) -> PartScores:
        """Scores of frames, with what was chosen, or as training begins."""

    @abstractmethod
    def choose(self, frames: Sequence[Judged], run: Path, flatters: bool) -> Defaults:
        """Choose a model's defaults on validation frames; tables of it go to `run`.

        `flatters`: these frames resemble some that taught, as `Split.flatters` has it.
        """

    @abstractmethod
    def epoch_row(
        self, epoch: int, step: int, taught: Taught, val_loss: float, scores: Any
    ) -> EpochRow:
        """The row of history.csv."""

    @abstractmethod
    def draw_curves(self, path: Path, history: Sequence[Any]) -> None:
        """Learning curves as a PNG."""

    @abstractmethod
    def panels(self, grey: Picture, truth: NDArray[np.int32], logits: Tensor) -> list[Picture]:
        """What a strip shows beside the image: truth, prediction, probabilities."""

    @abstractmethod
    def draw_target(self, target: NDArray[np.float32]) -> Picture:
        """A target (K, Y, X) as a picture."""

    def watch(self) -> Watch:
        """A look at each epoch's scores, for the length of a run."""
        return Watch()

    def keep(self, part: str, scores: Any, run: Path) -> None:
        """Write what belongs to the scores of a part, "val" or "test", to the run's folder."""
        return None

    def remarks(self, scores: Mapping[str, float], *, tested: bool) -> list[str]:
        """What to say of a run's last scores, by their names in checkpoints."""
        return []
