"""Scores that choose: foreground IoU, SEG, and F1 of objects at IoU 0.5 to 0.9, as the engine
counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import numpy as np

from engine.results.score.metrics import Score


@dataclass(frozen=True)
class Scores:
    """Scores of several frames; NaN where nothing defines one, as F1 where there is no object."""

    iou: float  # of all foreground pixels, pooled
    seg: float  # mean over frames
    f1: float  # mean over frames and over IoU 0.5 to 0.9
    f1_50: float  # mean over frames, at IoU 0.5

    @classmethod
    def pooled(cls, frames: Iterable[Score]) -> Scores:
        """IoU of all pixels together, SEG and F1 as the means of the frames'.

        So a frame of 300 nuclei chooses no more than one of 3. A frame for which a score isn't
        defined, as F1 where rightly nothing is found, is left out of its mean.
        """
        parts = list(frames)
        return cls(
            sum(parts, Score()).iou,
            _mean(parts, lambda p: p.seg),
            _mean(parts, lambda p: float(np.mean(p.f1))),
            _mean(parts, lambda p: p.f1[0]),
        )

    @property
    def rank(self) -> float:
        """What is compared to choose: the mean of SEG and F1; of F1 alone where the truth is empty.

        Less than any where F1 is not defined.
        """
        if math.isnan(self.f1):
            return -1.0
        return self.f1 if math.isnan(self.seg) else (self.seg + self.f1) / 2

    def defined(self) -> dict[str, float]:
        """The scores by name, without those that nothing defines."""
        return {name: value for name, value in asdict(self).items() if not math.isnan(value)}


def _mean(frames: Iterable[Score], of: Callable[[Score], float]) -> float:
    values = [value for value in map(of, frames) if not math.isnan(value)]
    return float(np.mean(values)) if values else math.nan
