"""Planes at the size in which they are drawn, never larger in memory than a few million pixels.

A picture of (h, w) px shows a frame of (Y, X) px. A pixel of the frame falls into the pixel
of the picture that contains its centre. Of an image, the mean of all that fall there is drawn; of
labels, the middle one. Where the picture is larger than the frame, pixels are repeated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from engine.results.planes import Planes
from engine.stacks.base import Stack, windows_of

Shape = tuple[int, int]  # height, width


def nearest(n: int, size: int) -> NDArray[np.intp]:
    """Which of `size` pixels is drawn at each of `n` places: the middle one of those there."""
    return (2 * np.arange(n) + 1) * size // (2 * n)


def draw_labels(planes: Planes, t: int, z: int, shape: Shape) -> NDArray[np.generic]:
    """Labels of a plane at `shape`; read band by band, from the smallest level that suffices."""
    level = planes.level_for(shape)
    rows = nearest(shape[0], planes.size("Y", level))
    columns = nearest(shape[1], planes.size("X", level))
    out = np.empty(shape, planes.dtype)
    for band in planes.bands(level):
        inside = np.flatnonzero((rows >= band.start) & (rows < band.stop))
        if len(inside):
            pixels = planes.read(t, z, band, level=level)
            out[inside] = pixels[np.ix_(rows[inside] - band.start, columns)]
    return out


def draw_probability(planes: Planes, t: int, z: int, shape: Shape, c: int) -> NDArray[np.float32]:
    """Probabilities of a plane and class at `shape`, 0..1."""
    level = planes.level_for(shape)
    size = (planes.size("Y", level), planes.size("X", level))
    columns = slice(0, size[1])
    windows = ((r, columns, planes.read(t, z, r, c, level)) for r in planes.bands(level))
    return mean_of(windows, size, shape) / np.float32(255)


def draw_image(stack: Stack, t: int, z: int, channel: int, shape: Shape) -> NDArray[np.float32]:
    """A channel of a frame at `shape`; FrameError where it cannot be read."""
    size = (stack.info.size("Y"), stack.info.size("X"))
    windows = (
        (rows, columns, stack.read_window(t, z, (channel,), rows, columns)[0])
        for rows, columns in windows_of(stack.info)
    )
    return mean_of(windows, size, shape)


def mean_of(
    windows: Iterable[tuple[slice, slice, NDArray[np.generic]]], size: Shape, shape: Shape
) -> NDArray[np.float32]:
    """Means over what falls into each pixel of a picture of `shape`, of a frame of `size`.

    `windows` are rows, columns and pixels (y, x) of parts that together are the frame. Along an
    axis where the picture is the larger one, pixels are repeated.
    """
    down, across = (_membership(n, m) for n, m in zip(size, shape, strict=True))
    total = np.zeros(shape, np.float32)
    for rows, columns, pixels in windows:
        part, inside = down[:, rows], across[:, columns]
        ys, xs = np.unique(part.indices), np.unique(inside.indices)
        total[np.ix_(ys, xs)] += part[ys] @ pixels.astype(np.float32) @ inside[xs].T
    counts = np.outer(down.sum(1), across.sum(1))
    mean: NDArray[np.float32] = np.divide(total, counts, dtype=np.float32)
    return mean


def _membership(n: int, m: int) -> Any:
    """Which of `n` pixels falls into each of `m` places, as ones in a sparse matrix (m, n)."""
    pixels, places = np.arange(n), nearest(n, m)
    if m > n:
        pixels, places = nearest(m, n), np.arange(m)
    return csc_array((np.ones(len(places), np.float32), (places, pixels)), shape=(m, n))
