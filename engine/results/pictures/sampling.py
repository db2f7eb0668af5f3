"""Planes at the size in which they are drawn, never larger in memory than a few million pixels.

A picture of (h, w) px shows a frame of (Y, X) px. A pixel of the frame falls into that of the
picture which its centre lies in: of an image the mean of all that fall there is drawn, of labels
the middle one.
Where the picture is larger than the frame, its pixels are repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from engine.results.planes import Planes
from engine.stacks.base import Stack, windows_of

Shape = tuple[int, int]  # height, width


def nearest(n: int, size: int) -> NDArray[np.intp]:
    """Which of `size` pixels is drawn at each of `n` places: the middle one of those there."""
    return (2 * np.arange(n) + 1) * size // (2 * n)


def falls(pixels: NDArray[np.intp], size: int, n: int) -> NDArray[np.intp]:
    """Into which of `n` places each of these pixels of `size` falls: that of its centre."""
    return (2 * pixels + 1) * n // (2 * size)


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

    def windows() -> Iterator[tuple[slice, slice, NDArray[np.generic]]]:
        for band in planes.bands(level):
            yield band, slice(0, size[1]), planes.read(t, z, band, c, level)

    return mean_of(windows, size, shape) / np.float32(255)


def draw_image(stack: Stack, t: int, z: int, channel: int, shape: Shape) -> NDArray[np.float32]:
    """A channel of a frame at `shape`; FrameError where it cannot be read."""
    size = (stack.info.size("Y"), stack.info.size("X"))

    def windows() -> Iterator[tuple[slice, slice, NDArray[np.generic]]]:
        for rows, columns in windows_of(stack.info):
            yield rows, columns, stack.read_window(t, z, (channel,), rows, columns)[0]

    return mean_of(windows, size, shape)


def mean_of(
    windows: Callable[[], Iterator[tuple[slice, slice, NDArray[np.generic]]]],
    size: Shape,
    shape: Shape,
) -> NDArray[np.float32]:
    """Means over what falls into each pixel of a picture of `shape`, of a frame of `size`.

    `windows` gives rows, columns and pixels (y, x) of parts that together are the frame. Along an
    axis where the picture is the larger one, pixels are repeated.
    """
    small = (min(shape[0], size[0]), min(shape[1], size[1]))
    total = np.zeros(small, np.float32)
    counts = [np.bincount(falls(np.arange(n), n, m)) for n, m in zip(size, small, strict=True)]
    for rows, columns, pixels in windows():
        sums, places = pixels.astype(np.float32), []
        for axis, window in enumerate((rows, columns)):
            bins = falls(np.arange(window.start, window.stop), size[axis], small[axis])
            starts = np.flatnonzero(np.r_[True, np.diff(bins) > 0])
            if len(starts) < len(bins):
                sums = np.add.reduceat(sums, starts, axis=axis)
            places.append(bins[starts])
        total[np.ix_(*places)] += sums
    down, across = counts
    mean: NDArray[np.float32] = np.divide(total, down[:, None] * across, dtype=np.float32)
    if small == shape:
        return mean
    picked = [nearest(n, m) if n > m else np.arange(n) for n, m in zip(shape, small, strict=True)]
    return mean[np.ix_(*picked)]
