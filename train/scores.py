"""Scores that choose: foreground IoU, and F1 of objects at IoU 0.5 to 0.9, as the engine counts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from engine.labels.instances import label_instances
from engine.labels.postprocessing import Postprocessing
from engine.results.score.metrics import Score


@dataclass(frozen=True)
class Scores:
    """Scores of several frames; NaN where nothing defines one, as F1 where there is no object."""

    iou: float  # of all foreground pixels, pooled
    f1: float  # mean over frames and over IoU 0.5 to 0.9; what the best epoch is chosen by
    f1_50: float  # mean over frames, at IoU 0.5

    @classmethod
    def pooled(cls, frames: Iterable[Score]) -> Scores:
        """IoU of all pixels together, F1 as the mean of the frames'.

        So a frame of 300 nuclei chooses no more than one of 3. A frame that is rightly empty
        has no F1 and is left out of its mean.
        """
        parts = list(frames)
        defined = [p.f1 for p in parts if not math.isnan(p.f1[0])]
        f1 = np.mean(defined, axis=0) if defined else np.full(1, np.nan)
        return cls(sum(parts, Score()).iou, float(f1.mean()), float(f1[0]))

    @property
    def rank(self) -> float:
        """What is compared to choose: F1, and less than any where it is not defined."""
        return -1.0 if math.isnan(self.f1) else self.f1

    def defined(self) -> dict[str, float]:
        """The scores by name, without those that nothing defines."""
        return {name: value for name, value in asdict(self).items() if not math.isnan(value)}


def label_objects(mask: NDArray[np.bool_], min_area: int = 0) -> NDArray[np.int32]:
    """The objects that the engine makes of a foreground (Y, X), of at least `min_area` px."""
    postprocessing = Postprocessing(
        threshold=0.5, min_area=min_area
    )  # the threshold has been applied
    return label_instances(mask, postprocessing).astype(np.int32)
