"""Probabilities as 8-bit numbers: how they are kept, and what they are when read again.

0 .. 255 stand for 0 .. 1; what is kept differs from what the network gave by 1/510 at most.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HIGHEST = 255


def to_8_bit(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The nearest of 256 steps, for probabilities of any shape."""
    kept: NDArray[np.uint8] = np.rint(probability * np.float32(HIGHEST)).astype(np.uint8)
    return kept


def from_8_bit(kept: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities in 0 .. 1 of any shape."""
    return kept.astype(np.float32) / np.float32(HIGHEST)
