"""Frames that hold their number, and what a stack of them holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.stacks.base import Stack
from engine.stacks.open import open_stack
from tests.stacks.frames import all_frames

SIDES = (20, 30)
PLAIN = {"photometric": "minisblack", "metadata": None}


def numbered(*numbers: int, shape: tuple[int, int] = SIDES) -> NDArray[np.uint16]:
    """Frames that each hold their number, and a ramp that tells pixels apart."""
    base = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    return np.stack([base + np.uint16(1000 * n) for n in numbers])


def frames(stack: Stack) -> NDArray[Any]:
    """(T, Y, X) of a stack of one channel and one plane."""
    with stack:
        return all_frames(stack)[:, 0, 0]


def absent_frames(stack: Stack) -> list[int]:
    """Numbers along T of the frames that are not there."""
    return [t for t in range(stack.info.size("T")) if stack.lacks(range(t, t + 1), range(1))]


def only(path: Path, series: str | None = None, axes: str | None = None) -> NDArray[Any]:
    return frames(open_stack(str(path), axes, series))
