"""Pixels that fill a frame up beyond the image, such as those outside the circle of a CT.

DICOM PS3.3, C.7.5.1.1.2: pixels of the Pixel Padding Value, or between it and the Pixel Padding
Range Limit, are no part of the image. They would be counted among the intensities by which a
network's input is normalised, and -2000 beside air of -1000 takes contrast from all the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.stacks.dicom.planes import first_number

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

FILLING_BYTES = 3  # a pixel: three masks; the filled pixels take the place of encoded ones
AMID = 0.01  # of a frame's image on either side of the padding: it is a value of the image


@dataclass(frozen=True)
class Padding:
    """The stored values that are no image, from the least to the largest."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.low}" if self.low == self.high else f"{self.low} to {self.high}"

    def filled(self, pixels: NDArray[Any], min_is_white: bool) -> NDArray[Any]:
        """Stored `pixels` (Y, X) with padding as dark as the darkest pixel of the image.

        The frame is left as it is where padding lies among the values of its image (headers are
        known that name a value of tissue), or is all that differs from one value.
        """
        below, above = pixels < self.low, pixels > self.high
        n_below, n_above = np.count_nonzero(below), np.count_nonzero(above)
        n_image = n_below + n_above
        if n_image in (0, pixels.size) or min(n_below, n_above) > AMID * n_image:
            return pixels
        image = above if n_above > n_below else below
        limits = np.iinfo(pixels.dtype)
        least = pixels.min(where=image, initial=limits.max)
        largest = pixels.max(where=image, initial=limits.min)
        if least == largest:
            return pixels
        return np.where(below | above, pixels, largest if min_is_white else least)


def padding_of(header: Dataset, bits: int, signed: bool) -> Padding | None:
    """What a header of grey pixels with `bits` stored bits says of padding; None: nothing.

    A value is taken by those bits, as decoded pixels are: many headers have the unsigned twin of a
    negative value, or one beyond the stored bits.
    """
    value = first_number(header.get("PixelPaddingValue"))
    if value is None or not value.is_integer():
        return None
    limit = first_number(header.get("PixelPaddingRangeLimit"))
    ends = sorted([value, value if limit is None or not limit.is_integer() else limit])
    low, high = (_by_bits(int(end), bits, signed) for end in ends)
    if low > high:  # the range ends beyond what the bits can hold, and would be all the others
        low = high = _by_bits(int(value), bits, signed)
    return Padding(low, high)


def _by_bits(value: int, bits: int, signed: bool) -> int:
    value %= 1 << bits
    return value - (1 << bits) if signed and value >= 1 << (bits - 1) else value
