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


def frame_statistics(frame: NDArray[Any], normalisation: Normalisation) -> NDArray[np.float32]:
    """Low and high value of each channel, float32 of shape (C, 2).

    `frame` has shape (C, Y, X) and any integer type, or float32. Where low equals high, a channel
    is constant: all its pixels are one value in float32, which is what the network sees. With the
    policy "range" they do so only where all channels are (`is_blank`). Raises FrameError where a
    channel holds values that are not finite, or too far apart for float32.
    """
    levels = (normalisation.low, normalisation.high)
    _require_finite(frame)
    if normalisation.policy == "range":
        return _fixed(levels, [(channel.min(), channel.max()) for channel in frame])
    return np.stack([_channel_statistics(channel, levels) for channel in frame])


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


def percentiles(values: NDArray[Any], levels: tuple[float, ...]) -> NDArray[np.float32]:
    """Percentiles by the inverted-CDF rule: the smallest value with at least q % at or below it.

    Equal to `numpy.percentile(..., method="inverted_cdf")`, several times faster for 8- and
    16-bit pixels, which are counted instead of sorted.
    """
    flat = values.reshape(-1)
    ranks = _ranks(flat.size, levels)
    if _is_narrow(flat.dtype):
        lowest = np.iinfo(flat.dtype).min
        # Shifted to start at 0, and widened by bincount alone.
        counted = flat if lowest == 0 else (flat.astype(np.int32) - lowest)
        below = np.cumsum(np.bincount(counted))
        found = np.searchsorted(below, ranks) + lowest
        return found.astype(np.float32)
    indices = [rank - 1 for rank in ranks]
    return np.partition(flat, indices)[indices].astype(np.float32)


def _is_narrow(dtype: np.dtype[Any]) -> bool:
    """Whether pixels are integers of so few bits that each value can be counted."""
    return dtype.kind in "ui" and dtype.itemsize <= 2


def windowed_statistics(
    windows: Callable[[], Iterator[NDArray[Any]]], normalisation: Normalisation
) -> NDArray[np.float32]:
    """`frame_statistics` of a frame that is never in memory as a whole: the same values.

    `windows` begins anew at each call and gives parts (C, y, x) that together are the frame. It
    is called once for 8- and 16-bit pixels, twice for others.
    """
    levels = (normalisation.low, normalisation.high)
    fixed = normalisation.policy == "range"
    counts: list[_Counts] = []
    for window in windows():
        counts = counts or [_Counts(window.dtype) for _ in window]
        for count, channel in zip(counts, window, strict=True):
            _require_finite(channel)
            count.extend(channel)
            if not fixed:
                count.add(channel)
    if fixed:
        return _fixed(levels, [(count.lowest, count.highest) for count in counts])
    if any(count.is_coarse for count in counts):
        refined = [count.refined(levels) for count in counts]
        for window in windows():
            for refinement, channel in zip(refined, window, strict=True):
                refinement.add(channel)
        found = [refinement.values(levels) for refinement in refined]
    else:
        found = [count.values(levels) for count in counts]
    pairs = zip(counts, found, strict=True)
    return np.stack([_with_contrast(low, high, c.lowest, c.highest) for c, (low, high) in pairs])


class _Counts:
    """How often each value of one channel occurs; as float32, each upper half of its bits."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.is_coarse = not _is_narrow(dtype)
        self._shift = 0 if self.is_coarse or dtype.kind == "u" else int(np.iinfo(dtype).min)
        self._counts = np.zeros(2**16, dtype=np.int64)
        self.lowest, self.highest = np.float32(np.inf), np.float32(-np.inf)

    def extend(self, channel: NDArray[Any]) -> None:
        """Let the range from `lowest` to `highest` hold the pixels of one window."""
        self.lowest = min(self.lowest, np.float32(channel.min()))
        self.highest = max(self.highest, np.float32(channel.max()))

    def add(self, channel: NDArray[Any]) -> None:
        """Count the pixels of one window."""
        for flat in _pieces(channel):
            if self.is_coarse:
                keys = _ordered_keys(flat) >> 16
            else:
                keys = flat if self._shift == 0 else flat.astype(np.int32) - self._shift
            self._counts += np.bincount(keys, minlength=2**16)

    def _find(self, levels: tuple[float, ...]) -> list[tuple[int, int]]:
        """For each level the value (or upper half) at its rank, and the rank within that."""
        below = np.cumsum(self._counts)
        found = []
        for rank in _ranks(int(below[-1]), levels):
            at = int(np.searchsorted(below, rank))
            found.append((at, rank - int(below[at] - self._counts[at])))
        return found

    def values(self, levels: tuple[float, ...]) -> NDArray[np.float32]:
        """The percentiles, of 8- and 16-bit pixels."""
        found = [at + self._shift for at, _ in self._find(levels)]
        return np.array(found, dtype=np.float32)

    def refined(self, levels: tuple[float, ...]) -> _Refinement:
        """What counts the lower halves of the bits, where the upper halves are those found."""
        return _Refinement(self._find(levels))


class _Refinement:
    """Second pass over pixels as float32: the lower half of the bits of a few values."""

    def __init__(self, wanted: list[tuple[int, int]]) -> None:
        self._wanted = wanted
        self._counts = {upper: np.zeros(2**16, dtype=np.int64) for upper, _ in wanted}

    def add(self, channel: NDArray[Any]) -> None:
        """Count the pixels of one window."""
        for flat in _pieces(channel):
            keys = _ordered_keys(flat)
            for upper, counts in self._counts.items():
                lower = keys[keys >> 16 == upper] & 0xFFFF
                counts += np.bincount(lower, minlength=2**16)

    def values(self, levels: tuple[float, ...]) -> NDArray[np.float32]:
        """The percentiles."""
        keys = [
            upper << 16 | int(np.searchsorted(np.cumsum(self._counts[upper]), rank))
            for upper, rank in self._wanted
        ]
        return _from_keys(np.array(keys, dtype=np.uint32))


def _pieces(channel: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """A million pixels at a time: NumPy counts them as 64-bit indices."""
    flat = channel.reshape(-1)
    return (flat[start : start + 2**20] for start in range(0, flat.size, 2**20))


def _ordered_keys(values: NDArray[Any]) -> NDArray[np.uint32]:
    """Integers in the order of the values as float32: the sign bit set, negative ones inverted.

    No rounding to float32 changes an order, so that percentiles of wide integers are right too.
    """
    bits = (values.astype(np.float32, copy=False) + np.float32(0)).view(
        np.uint32
    )  # -0 and 0 are one value
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _from_keys(keys: NDArray[np.uint32]) -> NDArray[np.float32]:
    return np.where(keys >> 31, keys ^ np.uint32(1 << 31), ~keys).view(np.float32)


def _ranks(size: int, levels: tuple[float, ...]) -> list[int]:
    return [max(math.ceil(size * (q / 100)), 1) for q in levels]


def _channel_statistics(channel: NDArray[Any], levels: tuple[float, float]) -> NDArray[np.float32]:
    low, high = percentiles(channel, levels)
    lowest, highest = (low, high) if low < high else (channel.min(), channel.max())
    return _with_contrast(low, high, np.float32(lowest), np.float32(highest))


def _fixed(levels: tuple[float, float], extremes: list[tuple[Any, Any]]) -> NDArray[np.float32]:
    """The same levels for every channel, unless each is constant by its least and greatest."""
    found = np.array(extremes, dtype=np.float32)
    if is_blank(found):
        return found
    return np.tile(np.array([levels], dtype=np.float32), (len(found), 1))


def _with_contrast(
    low: np.float32, high: np.float32, lowest: np.float32, highest: np.float32
) -> NDArray[np.float32]:
    if low == high:
        # A few bright objects on a flat background: the percentiles coincide, the range does not.
        low, high = lowest, highest
    with np.errstate(over="ignore"):
        if not np.isfinite(high - low):
            raise FrameError(f"values from {low:g} to {high:g} are too far apart for float32")
    return np.array([low, high], dtype=np.float32)


def _require_finite(values: NDArray[Any]) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int(values.size - np.isfinite(values).sum())
        raise FrameError(f"{bad} of {values.size} pixels are NaN or infinite")
