"""Areas and lengths as users write them: in px, or in um, which a stack's pixel size resolves."""

from __future__ import annotations

import math
import re

from engine.errors import StackError
from engine.stacks.base import StackInfo

_TEXT = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?([a-zµμ]*)(?:\^?([2²]))?", re.I)
_UNITS = {"": "px", "px": "px", "um": "um", "µm": "um", "μm": "um"}


def parse_quantity(text: str | float, dimensions: int) -> tuple[float, str]:
    """Value and unit, "px" or "um": an area ("30", "30px", "12.5um2") or a length ("2.5um").

    `dimensions` is 2 for areas. Areas in px are written without a square. Raises ValueError.
    """
    found = _TEXT.fullmatch(str(text).strip())
    unit = _UNITS.get(found[2].lower()) if found else None
    squared = bool(found and found[3])
    if found is None or unit is None or squared != (unit == "um" and dimensions == 2):
        example = "30, 30px or 12um2" if dimensions == 2 else "6, 6px or 2.5um"
        raise ValueError(f"is not understood; give it like {example}")
    return float(found[1]), unit


def area_px(option: str, given: str | float, info: StackInfo) -> float:
    """An area in px of a stack; StackError where that needs a pixel size that it does not tell.

    Rounded to a billionth of a px: 0.1 um2 are 10 pixels of 0.01 um2, and not a bit more.
    """
    value, unit = parse_quantity(given, 2)
    if unit == "px":
        return value
    height, width = _pixel_size(f"{option} {given}", info)
    return round(value / (height * width), 9)


def length_px(option: str, given: str | float, info: StackInfo) -> float:
    """A length in px of a stack; StackError where its pixels are not known, or not square."""
    value, unit = parse_quantity(given, 1)
    if unit == "px":
        return value
    height, width = _pixel_size(f"{option} {given}", info)
    if not math.isclose(height, width, rel_tol=1e-3):
        raise StackError(
            f"{info.path}: its pixels of {height:g} x {width:g} um are not square, so that "
            f"{option} {given} is not one number of px; give px"
        )
    return round(value / math.sqrt(height * width), 9)


def _pixel_size(what: str, info: StackInfo) -> tuple[float, float]:
    sizes = info.pixel_size_um
    if not {"Y", "X"} <= set(sizes):
        raise StackError(f"{info.path}: tells no pixel size, which {what} needs; give px")
    return sizes["Y"], sizes["X"]
