"""Scores that choose: foreground IoU, and F1 of objects at IoU 0.5 to 0.9, as the engine counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.labels.instances import label_instances
from engine.rules import Rules
from engine.score.metrics import Score


@dataclass(frozen=True)
class Scores:
    """Scores of several frames."""

    iou: float  # of all foreground pixels, pooled
    f1: float  # mean over frames and over IoU 0.5 to 0.9; what the best epoch is chosen by
    f1_50: float  # mean over frames, at IoU 0.5

    @classmethod
    def pooled(cls, frames: Iterable[Score]) -> Scores:
        """IoU of all pixels together, F1 as the mean of the frames'.

        So a frame of 300 nuclei chooses no more than one of 3. A frame that is rightly empty
        has no F1 and is left out of its mean. Scores that nothing defines are 1.
        """
        parts = list(frames)
        iou = sum(parts, Score()).iou
        defined = [p.f1 for p in parts if not np.isnan(p.f1[0])]
        f1 = np.mean(defined, axis=0) if defined else np.ones(1)
        return cls(1.0 if np.isnan(iou) else iou, float(f1.mean()), float(f1[0]))


def label_objects(foreground: NDArray[np.bool_], min_area: int = 0) -> NDArray[np.int32]:
    """The objects that the engine makes of a foreground (Y, X), of at least `min_area` px."""
    rules = Rules(threshold=0.5, min_area=min_area)  # the threshold has been applied
    return label_instances(foreground, rules).astype(np.int32)
