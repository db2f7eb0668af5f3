"""Intensity statistics of a frame, from which the model's graph normalises.

Always of the whole frame, never of a tile: tiling must change nothing. Training takes its
statistics from here as well, so that a network sees the same pixels at both ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError
from engine.model.spec import Normalisation

NEAR = 5.0  # percent from an end: such percentiles are looked for there
LEAST = 2**16  # pixels; of fewer, all are counted
SAMPLED = 61  # every so many pixels
MARGIN = 24  # values of a sample, beyond what it suggests
PIECE = 2**18  # pixels counted at once: NumPy counts them as 64-bit indices


def frame_statistics(frame: NDArray[Any], normalisation: Normalisation) -> NDArray[np.float32]:
    """Low and high value of each channel, float32 of shape (C, 2).

    `frame` has shape (C, Y, X) and any integer type, or float32. Where low equals high, a channel
    is constant: all its pixels are one value in float32, which is what the network sees. With the
    policy "range" they do so only where all channels are (`is_blank`). Raises FrameError where a
    channel holds values that are not finite, or too far apart for float32.
    """
    levels = (normalisation.low, normalisation.high)
    if normalisation.policy == "percentile" and frame.dtype.kind in "iu":
        found = [_near_the_ends(channel, levels) for channel in frame]
        if all(values is not None and values[0] < values[1] for values in found):
            return np.array(found, dtype=np.float32)
    return windowed_statistics(lambda: iter([frame]), normalisation)


def _near_the_ends(channel: NDArray[Any], levels: tuple[float, float]) -> tuple[int, int] | None:
    """The percentiles of whole numbers, of 16 bits at most, without counting all of them.

    Those near an end follow from the pixels beyond a value that a sample suggests; None where
    these are many. What is found is exact, whatever the sample.
    """
    low, high = levels
    if channel.dtype.itemsize > 2 or channel.size < LEAST or low > NEAR or high < 100 - NEAR:
        return None
    flat = channel.reshape(-1)
    sample = np.sort(flat[::SAMPLED], kind="stable")
    below = _rank(flat.size, low)
    at = sample[min(round(len(sample) * low / 100 * 1.25) + MARGIN, len(sample) - 1)]
    first = _at_rank(flat, below, at)
    # From the top: with the order turned round, the same.
    above = flat.size + 1 - _rank(flat.size, high)
    at = sample[max(round(len(sample) * (1 - (1 - high / 100) * 1.25)) - MARGIN, 0)]
    last = _at_rank(~flat, above, ~at)
    return None if first is None or last is None else (first, int(~flat.dtype.type(last)))


def _rank(size: int, level: float) -> int:
    """Which of `size` sorted values a percentile is, from 1."""
    return max(math.ceil(size * (level / 100)), 1)


def _at_rank(flat: NDArray[Any], rank: int, near: Any) -> int | None:
    """The value at a rank, from 1, which is `near` or below; None where it is not, or of many."""
    places = np.flatnonzero(flat < near)
    if rank <= len(places) <= len(flat) // 8:
        return int(np.partition(flat[places], rank - 1)[rank - 1])
    if len(places) < rank <= np.count_nonzero(flat <= near):
        return int(near)
    return None


def windowed_statistics(
    windows: Callable[[], Iterator[NDArray[Any]]], normalisation: Normalisation
) -> NDArray[np.float32]:
    """`frame_statistics` of a frame that need not be in memory as a whole: the same values.

    `windows` begins again at each call and gives parts (C, y, x) that together are the frame. It
    is called once for 8- and 16-bit pixels, twice for others.
    """
    levels = (normalisation.low, normalisation.high)
    fixed = normalisation.policy == "range"
    channels: list[Histogram] = []
    for window in windows():
        _require_finite(window)
        channels = channels or [Histogram(window.dtype) for _ in window]
        for values, channel in zip(channels, window, strict=True):
            if fixed or values.is_wide:
                values.extend(channel)
            if not fixed:
                values.count(channel)
    if fixed:
        extremes = np.array([values.extremes for values in channels], dtype=np.float32)
        # The same levels for every channel, unless each is constant by its least and greatest.
        return (
            extremes
            if is_blank(extremes)
            else np.tile(np.array(levels, np.float32), (len(channels), 1))
        )
    if channels[0].is_wide:
        for values in channels:
            values.refine(levels)
        for window in windows():
            for values, channel in zip(channels, window, strict=True):
                values.count(channel)
    return np.stack([_with_contrast(values, levels) for values in channels])


def windowed(frame: NDArray[Any], window: tuple[float, float] | None) -> NDArray[Any]:
    """A frame limited to a window, least and greatest value; itself where there is none.

    Of integers the ends are rounded to whole values. Raises FrameError for floats that are not
    finite, which the window would hide.
    """
    if window is None:
        return frame
    least, most = window
    if frame.dtype.kind in "ui":
        limits = np.iinfo(frame.dtype)
        least, most = (min(max(round(end), limits.min), limits.max) for end in window)
    else:
        _require_finite(frame)
    limited: NDArray[Any] = np.clip(frame, frame.dtype.type(least), frame.dtype.type(most))
    return limited


def is_blank(statistics: NDArray[np.float32]) -> bool:
    """Whether a frame of these statistics, (C, 2), is blank: every channel is constant.

    Such a frame has no objects, whatever the network would make of it.
    """
    return bool((statistics[:, 0] == statistics[:, 1]).all())


def normalisable(statistics: NDArray[np.float32]) -> NDArray[np.float32]:
    """Statistics (C, 2) by which a network can divide: a constant channel becomes 0 everywhere."""
    low, high = statistics[:, 0], statistics[:, 1]
    step = np.maximum(np.float32(1), np.spacing(np.abs(low)))
    with np.errstate(over="ignore"):  # beyond the largest float32: divided by infinity it is 0 too
        above = np.where(low == high, low + step, high)
    return np.stack([low, above], axis=1)


class Histogram:
    """How often each value of one channel occurs, from which its percentiles follow.

    By the inverted-CDF rule: the smallest value with at least q % at or below it, as
    `numpy.percentile(..., method="inverted_cdf")`. Integers of 8 and 16 bits are counted one by
    one. All others are taken as float32 and counted by the upper half of their bits; then, in a
    second pass, by the lower half where the upper one is that of a percentile.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.is_wide = dtype.kind not in "ui" or dtype.itemsize > 2
        self._shift = 0 if self.is_wide or dtype.kind == "u" else int(np.iinfo(dtype).min)
        self._counts = np.zeros(2**16, dtype=np.int64)
        self._lower: dict[int, NDArray[np.int64]] = {}  # counts of lower halves, by upper half
        self._lowest, self._highest = np.float32(np.inf), np.float32(-np.inf)

    @property
    def extremes(self) -> tuple[np.float32, np.float32]:
        """The least and the greatest value; where they are not known, of those counted."""
        if self._lowest > self._highest:
            occurring = np.flatnonzero(self._counts) + self._shift
            return np.float32(occurring[0]), np.float32(occurring[-1])
        return self._lowest, self._highest

    def extend(self, channel: NDArray[Any]) -> None:
        """Let the extremes include the pixels of one window."""
        self._lowest = min(self._lowest, np.float32(channel.min()))
        self._highest = max(self._highest, np.float32(channel.max()))

    def count(self, channel: NDArray[Any]) -> None:
        """Count the pixels of one window, after `refine` the lower halves of their bits."""
        flat = channel.reshape(-1)
        for start in range(0, flat.size, PIECE):
            piece = flat[start : start + PIECE]
            if not self.is_wide:
                keys = piece if self._shift == 0 else piece.astype(np.int32) - self._shift
                self._counts += np.bincount(keys, minlength=2**16)
                continue
            keys = _ordered_keys(piece)
            if not self._lower:
                self._counts += np.bincount(keys >> 16, minlength=2**16)
            for upper, counts in self._lower.items():
                lower = keys[keys >> 16 == upper] & 0xFFFF
                counts += np.bincount(lower, minlength=2**16)

    def refine(self, levels: tuple[float, ...]) -> None:
        """From now on, count lower halves, of values whose upper half is that of a percentile."""
        self._lower = {at: np.zeros(2**16, dtype=np.int64) for at, _ in self._find(levels)}

    def percentiles(self, levels: tuple[float, ...]) -> NDArray[np.float32]:
        """The percentiles; of wide values after a second pass."""
        found = self._find(levels)
        if not self.is_wide:
            return np.array([at + self._shift for at, _ in found], dtype=np.float32)
        keys = [
            upper << 16 | int(np.searchsorted(np.cumsum(self._lower[upper]), rank))
            for upper, rank in found
        ]
        return _from_keys(np.array(keys, dtype=np.uint32))

    def _find(self, levels: tuple[float, ...]) -> list[tuple[int, int]]:
        """For each level the value (or upper half) at its rank, and the rank within that."""
        below = np.cumsum(self._counts)
        ranks = [_rank(int(below[-1]), q) for q in levels]
        places = [int(np.searchsorted(below, rank)) for rank in ranks]
        return [
            (at, rank - int(below[at] - self._counts[at]))
            for at, rank in zip(places, ranks, strict=True)
        ]


def _ordered_keys(values: NDArray[Any]) -> NDArray[np.uint32]:
    """Integers in the order of the values as float32: the sign bit set, negative ones inverted.

    No rounding to float32 changes an order, so that percentiles of wide integers are right too.
    """
    one_zero = values.astype(np.float32, copy=False) + np.float32(0)  # of 0 and -0
    bits = one_zero.view(np.uint32)
    flipped = (one_zero.view(np.int32) >> 31).view(np.uint32) | np.uint32(1 << 31)
    return bits ^ flipped


def _from_keys(keys: NDArray[np.uint32]) -> NDArray[np.float32]:
    return np.where(keys >> 31, keys ^ np.uint32(1 << 31), ~keys).view(np.float32)


def _with_contrast(values: Histogram, levels: tuple[float, float]) -> NDArray[np.float32]:
    low, high = values.percentiles(levels)
    if low == high:
        # A few bright objects on a flat background: the percentiles coincide, the range does not.
        low, high = values.extremes
    with np.errstate(over="ignore"):
        if not np.isfinite(high - low):
            raise FrameError(f"values from {low:g} to {high:g} are too far apart for float32")
    return np.array([low, high], dtype=np.float32)


def _require_finite(values: NDArray[Any]) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int(values.size - np.isfinite(values).sum())
        raise FrameError(f"{bad} of {values.size} pixels are NaN or infinite")
