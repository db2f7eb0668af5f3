"""What the network gave for a plane, as labelling and measures ask for it.

Either its probabilities, or what was decided of them in the graph (`engine.model.graph.decision`):
masks and class maps are the same, bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.inference.probability import from_8_bit
from engine.labels import classes
from engine.labels.postprocessing import Postprocessing
from engine.model.graph.decision import CORE, NOT_FINITE, Decision
from engine.model.spec import ModelSpec

Masks = tuple[NDArray[np.bool_], NDArray[np.bool_] | None]


@dataclass(frozen=True)
class Outputs:
    """The outputs for a plane, or a part of one."""

    values: NDArray[Any]  # float32 (K, Y, X): probabilities; uint8 (2, Y, X): decided
    n_classes: int  # outputs that tell classes; that of cores comes after them

    @property
    def is_decided(self) -> bool:
        """Whether the probabilities themselves are gone."""
        return self.values.dtype == np.uint8

    @cached_property
    def is_finite(self) -> bool:
        """Whether no probability was NaN or infinite."""
        if self.is_decided:
            return not (self.values[0] == NOT_FINITE).any()
        # NaN is the least and the greatest of all.
        return bool(np.isfinite([self.values.min(), self.values.max()]).all())

    @property
    def probability(self) -> NDArray[np.float32]:
        """Probabilities (K, Y, X); ValueError where they are gone."""
        if self.is_decided:
            raise ValueError("decided outputs have no probabilities")
        return self.values

    def within(self, inside: tuple[slice, slice]) -> Outputs:
        """Those of some rows and columns: a view."""
        return replace(self, values=self.values[:, *inside])

    def masks(self, postprocessing: Postprocessing) -> Masks:
        """Foreground, and cores where instances are found by them, bool (Y, X)."""
        if not self.is_decided:
            return classes.masks(self.values, postprocessing)
        by_cores = postprocessing.instances == "cores"
        chosen = self.values[0]
        return (chosen & 1) != 0, (chosen & CORE) != 0 if by_cores else None

    def class_map(self, threshold: float) -> NDArray[np.uint8]:
        """Classes (Y, X), 0 is background."""
        if not self.is_decided:
            return classes.class_map(self.values[: self.n_classes], threshold)
        chosen: NDArray[np.uint8] = self.values[0]
        return chosen & np.uint8(1) if self.n_classes == 1 else chosen

    def certainty(self) -> NDArray[np.float32]:
        """Probability (Y, X) of the foreground; of several classes that of each pixel's own."""
        if self.is_decided:
            return from_8_bit(self.values[1])
        if self.n_classes == 1:
            found: NDArray[np.float32] = self.values[0]
            return found
        highest: NDArray[np.float32] = self.values[: self.n_classes].max(axis=0)
        return highest

    def each_class(self, n_classes: int) -> NDArray[np.float32]:
        """Probabilities (n_classes, Y, X) of which that of each pixel's own class is right.

        Of background, where outputs were decided, it is that of the foreground.
        """
        if not self.is_decided:
            return classes.each_class(self.values[: self.n_classes])
        certainty = self.certainty()
        return np.broadcast_to(certainty, (n_classes, *certainty.shape))


def nothing(spec: ModelSpec, shape: tuple[int, int], decision: Decision | None) -> Outputs:
    """Outputs for a plane, (Y, X), of nothing but background, as a blank frame has them."""
    if decision is not None:
        decided = np.zeros((2, *shape), dtype=np.uint8)
        decided[1] = 0 if spec.is_binary else 255
        return Outputs(decided, spec.n_class_outputs)
    probability = np.zeros((spec.n_outputs, *shape), dtype=np.float32)
    if not spec.is_binary:  # of one foreground class, and of its cores, there is no such output
        probability[0] = 1
    return Outputs(probability, spec.n_class_outputs)
