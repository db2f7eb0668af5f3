"""Where a class is: the smallest box around it in each plane, and in the volume, with a margin.

plane   . . . . . .      box of 2     2 2 .     with a margin of 1 px, which ends
        . 1 2 2 . .                   . 2 .     where the plane does
        . 1 . 2 . .
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from functools import reduce
from typing import NamedTuple

import numpy as np

from engine.errors import UsageError
from engine.results.planes import Planes

_UNITS = {"mm": 1000.0, "um": 1.0, "µm": 1.0}


class Box(NamedTuple):
    """Half-open ranges of pixels: from the first to before the second."""

    z: tuple[int, int]
    y: tuple[int, int]
    x: tuple[int, int]

    def around(self, other: Box) -> Box:
        """The smallest box around both."""
        return Box(*((min(a, c), max(b, d)) for (a, b), (c, d) in zip(self, other, strict=True)))

    @property
    def rows(self) -> slice:
        """Along Y."""
        return slice(*self.y)

    @property
    def columns(self) -> slice:
        """Along X."""
        return slice(*self.x)


class Margin(NamedTuple):
    """A margin on all sides: in pixels of a plane, or as a length."""

    px: int = 0
    um: float | None = None  # None: it is in px

    def of(self, axis: str, pixel_size_um: Mapping[str, float]) -> int:
        """Pixels along Z, Y or X; UsageError where a length needs a size that is not known.

        Along Z, pixels count for nothing, and neither does a length where planes have no distance.
        """
        if self.um is None:
            return 0 if axis == "Z" else self.px
        size = pixel_size_um.get(axis)
        if size is None and axis != "Z":
            raise UsageError(
                "--margin is a length, and the result knows no pixel size; give it in px"
            )
        return math.ceil(self.um / size) if size else 0


def parse_margin(text: str) -> Margin:
    """The margin of "10px", "10", "5mm" or "20um"; UsageError where it is none."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(px|mm|um|µm|)\s*", text)
    if match is None:
        raise UsageError(f"--margin {text}: give a margin such as 10px, 5mm or 20um")
    number, unit = float(match[1]), match[2] or "px"
    if unit != "px":
        return Margin(um=number * _UNITS[unit])
    if not number.is_integer():
        raise UsageError(f"--margin {text}: pixels are whole; give 3px, or a length such as 0.5mm")
    return Margin(px=int(number))


def find_boxes(labels: Planes, values: Collection[int] | None) -> dict[tuple[int, int], Box]:
    """The box of some labels in each plane, by (t, z); of all but 0 where `values` is None.

    Planes without them are left out. Large planes are read band by band.
    """
    wanted = None if values is None else np.array(sorted(values))
    found = {}
    for t, z in labels.numbers:
        boxes = []
        for band in labels.bands():
            pixels = labels.read(t, z, band)
            mask = pixels != 0 if wanted is None else np.isin(pixels, wanted)
            y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            if len(y):
                rows = band.start + int(y[0]), band.start + int(y[-1]) + 1
                boxes.append(Box((z, z + 1), rows, (int(x[0]), int(x[-1]) + 1)))
        if boxes:
            found[t, z] = together(boxes)
    return found


def together(boxes: Iterable[Box]) -> Box:
    """The smallest box around several."""
    return reduce(Box.around, boxes)


def widened(box: Box, margin: Margin, labels: Planes, *, along_z: bool) -> Box:
    """The box with a margin, as far as the labels go; of a single plane not along Z."""
    z0 = labels.first[1]
    limits = ((z0, z0 + labels.size("Z")), (0, labels.size("Y")), (0, labels.size("X")))
    wider = []
    for axis, (low, high), (first, end) in zip("ZYX", box, limits, strict=True):
        more = margin.of(axis, labels.pixel_size_um) if axis != "Z" or along_z else 0
        wider.append((max(low - more, first), min(high + more, end)))
    return Box(*wider)
