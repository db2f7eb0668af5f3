"""Stored values to real ones, value = slope * stored + intercept, in the narrowest exact dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_BAND = 1 << 18  # px that are computed at once, in float64
_INTEGERS = ("int16", "uint16", "int32", "uint32")
BAND_BYTES = _BAND * 8 * 2  # of temporary values


class Rescale(NamedTuple):
    """A straight line from stored to real values."""

    slope: float = 1.0
    intercept: float = 0.0

    @property
    def changes_nothing(self) -> bool:
        """Whether stored values are the real ones."""
        return self == (1.0, 0.0)


def rescaled_dtype(stored: str, ranges: Sequence[tuple[int, int]], lines: Sequence[Rescale]) -> str:
    """The dtype in which real values are exact, as far as it is one that frames are read in.

    `stored` is the dtype of the values in the file, and `ranges` are the least and the largest
    that each of `lines` may meet. Lines that give integers from integers give the narrowest integer
    that holds all they can give, others float32.
    """
    if all(line.changes_nothing for line in lines):
        return stored
    whole = all(value.is_integer() for line in lines for value in line)
    if not whole or np.dtype(stored).kind == "f":
        return "float32"
    ends = [
        int(line.slope) * end + int(line.intercept)
        for line, span in zip(lines, ranges, strict=True)
        for end in span
    ]
    for name in _INTEGERS:
        limits = np.iinfo(name)
        if limits.min <= min(ends) and max(ends) <= limits.max:
            return name
    return "float32"


def rescaled(stored: NDArray[Any], line: Rescale, dtype: str) -> NDArray[Any]:
    """`stored` on its line, as an array of `dtype`; computed in float64, band by band."""
    if line.changes_nothing:
        return stored.astype(dtype, copy=False)
    out = np.empty(stored.shape, dtype)
    per_row = max(int(np.prod(stored.shape[1:])), 1)
    rows = max(_BAND // per_row, 1)
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is infinite
        for at in range(0, len(stored), rows):
            band = stored[at : at + rows].astype(np.float64)
            band *= line.slope
            band += line.intercept
            out[at : at + rows] = band
    return out
