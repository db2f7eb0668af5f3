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

FILLING_BYTES = 2  # a pixel: which of them is padding, and its opposite


@dataclass(frozen=True)
class Padding:
    """The stored values that are no image, from the least to the largest."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.low}" if self.low == self.high else f"{self.low} to {self.high}"

    def filled(self, pixels: NDArray[Any], min_is_white: bool) -> NDArray[Any]:
        """Stored `pixels` (Y, X) with padding as dark as the darkest pixel of the image.

        Padding that lies among the values of the image is left as it is: it changes no contrast,
        and headers are known that name a value of tissue.
        """
        image = (pixels < self.low) | (pixels > self.high)
        if image.all() or not image.any():
            return pixels
        limits = np.iinfo(pixels.dtype)
        least = pixels.min(where=image, initial=limits.max)
        largest = pixels.max(where=image, initial=limits.min)
        if least < self.low and self.high < largest:
            return pixels
        return np.where(image, pixels, largest if min_is_white else least)


def padding_of(header: Dataset, bits: int, signed: bool) -> Padding | None:
    """What a header of grey pixels with `bits` stored bits says of padding; None: nothing.

    A value is taken by those bits, as decoded pixels are: many headers have the unsigned twin of a
    negative value, or one beyond the stored bits.
    """
    ends = [
        _by_bits(int(value), bits, signed)
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        if (value := first_number(header.get(keyword))) is not None and value.is_integer()
    ]
    if not ends or first_number(header.get("PixelPaddingValue")) is None:
        return None
    return Padding(min(ends), max(ends))


def _by_bits(value: int, bits: int, signed: bool) -> int:
    value %= 1 << bits
    return value - (1 << bits) if signed and value >= 1 << (bits - 1) else value
