"""What the reader tests share: all frames of a stack, and arrays to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.stacks.base import Stack
from engine.stacks.open import open_stack


def ramp(shape: tuple[int, ...], dtype: str = "uint16") -> NDArray[Any]:
    """Every pixel different as far as the dtype allows, negative ones too where it has them."""
    n = int(np.prod(shape))
    values = np.arange(n, dtype=np.int64).reshape(shape)
    if np.dtype(dtype).kind == "b":
        return values % 3 == 0
    if np.dtype(dtype).kind == "f":
        return (values / 8 - 5).astype(dtype)
    low = int(np.iinfo(dtype).min)
    return (values % min(2**16, 2 ** (8 * np.dtype(dtype).itemsize)) + max(low, -100)).astype(dtype)


def all_frames(stack: Stack) -> NDArray[Any]:
    """Shape (T, Z, C, Y, X)."""
    info = stack.info
    channels = range(info.size("C"))
    return np.stack(
        [
            np.stack([stack.read(t, z, channels) for z in range(info.size("Z"))])
            for t in range(info.size("T"))
        ]
    )


def as_tzcyx(pixels: NDArray[Any], axes: str) -> NDArray[Any]:
    """The same pixels with all five axes, in the order of `all_frames`."""
    order = [axes.index(a) for a in "TZCYX" if a in axes]
    sizes = dict(zip(axes, pixels.shape, strict=True))
    return pixels.transpose(order).reshape([sizes.get(a, 1) for a in "TZCYX"])


def check(path: Path, pixels: NDArray[Any], axes: str, given: str | None = None) -> Stack:
    """The stack at `path` holds `pixels`, whose axes are `axes`; returns it, open."""
    stack = open_stack(str(path), given)
    expected = as_tzcyx(pixels, axes)
    assert [stack.info.size(a) for a in "TZCYX"] == list(expected.shape)
    frames = all_frames(stack)
    assert frames.dtype == stack.info.dtype
    np.testing.assert_array_equal(frames, expected.astype(stack.info.dtype))
    return stack
