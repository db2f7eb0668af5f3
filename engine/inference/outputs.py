"""What the network gave for a plane, as labelling and measures ask for it.

Either its probabilities, or what was decided of them in the graph (`engine.model.graph.decision`):
masks and class maps are the same, bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from engine.compiled import compiled
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
        return _is_finite(self.values)

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


def _is_finite(values: NDArray[np.float32]) -> bool:
    """Whether none of some values, (K, Y, X), is NaN or infinite."""
    if not values.size or values.strides[-1] != values.itemsize or min(values.strides) < 0:
        return bool(np.isfinite(values).all())
    # Numba vectorises loops over contiguous memory alone, and a window is contiguous only within
    # its rows: it gets the memory that the window spans as one row.
    plane, line, _ = (stride // values.itemsize for stride in values.strides)
    n, height, width = values.shape
    memory = as_strided(
        values,
        ((n - 1) * plane + (height - 1) * line + width,),
        values.strides[-1:],
        writeable=False,
    )
    return _are_finite(memory.view(np.uint32), values.shape, plane, line)


@compiled
def _are_finite(
    bits: NDArray[np.uint32], shape: tuple[int, int, int], plane: int, line: int
) -> bool:
    """Whether float32 values of a shape (K, Y, X) are finite, by their bits.

    `plane` and `line` are the strides of planes and rows, in values.
    """
    exponent = np.uint32(0x7F800000)  # all bits of it are set in NaN and infinity
    n, height, width = shape
    found = False
    for k in range(n):
        for y in range(height):
            begin = k * plane + y * line
            row = bits[begin : begin + width]
            for x in range(len(row)):
                found |= row[x] & exponent == exponent
    return not found
