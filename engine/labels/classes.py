"""From probabilities to classes: the one place where a threshold is compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.labels.postprocessing import Postprocessing


def foreground(probability: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Pixels whose probability, of any shape, reaches the threshold."""
    reached: NDArray[np.bool_] = probability >= np.float32(threshold)
    return reached


def masks(
    probability: NDArray[np.float32], postprocessing: Postprocessing
) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    """Foreground, and cores where instances are found by them, (Y, X), of outputs (K, Y, X)."""
    objects = foreground(probability[0], postprocessing.threshold)
    if postprocessing.instances != "cores":
        return objects, None
    return objects, foreground(probability[1], postprocessing.core_threshold)


def class_map(probability: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Classes (Y, X), 0 is background, of probabilities (K, Y, X), without those of cores.

    One output is the foreground's; of several, one for each class, the highest wins.
    """
    if len(probability) == 1:
        return foreground(probability[0], threshold).astype(np.uint8)
    highest: NDArray[Any] = probability.argmax(axis=0)
    return highest.astype(np.uint8)


def each_class(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probability of every class, background included, of outputs (K, Y, X) for classes."""
    if len(probability) > 1:
        return probability
    return np.concatenate([1 - probability, probability])
