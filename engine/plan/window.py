"""A window of pixel values, such as one of Hounsfield units: what the network sees of a stack.

    value    -1000 ... -160 ........ 240 ... 3000        --window 40,400
    seen      -160     -160 ........ 240      240

What is beyond it is limited to its ends before statistics are taken, for the network alone: objects
are measured in the pixels as they are, and those are what `--with-image` keeps.
"""

from __future__ import annotations

import math
from typing import Literal

from engine.errors import StackError
from engine.model.spec import ModelSpec
from engine.stacks.base import StackInfo

Window = tuple[float, float]


def parse_window(text: str) -> Window | Literal["file", "none"]:
    """Center and width of "CENTER,WIDTH", or one of two words; ValueError for others."""
    if text in ("file", "none"):
        return "file" if text == "file" else "none"
    return parse_numbers(text, ", file or none")


def parse_numbers(text: str, otherwise: str = "") -> Window:
    """Center and width of "CENTER,WIDTH"; ValueError for others, with what else may be given."""
    try:
        center, width = (float(part) for part in text.split(","))
    except ValueError:
        center = width = math.nan
    if not (math.isfinite(center) and math.isfinite(width)):
        raise ValueError(f"is not understood; give CENTER,WIDTH such as 40,400{otherwise}")
    if width <= 0:
        raise ValueError(f"has a width of {width:g}; give CENTER,WIDTH with a width above 0")
    return center, width


def ends_of(center: float, width: float) -> Window:
    """The least and the greatest value inside a window."""
    return center - width / 2, center + width / 2


def resolve_window(given: str | None, spec: ModelSpec, info: StackInfo) -> Window | None:
    """The ends of the window for a stack: as asked for, else the model's; None: there is none.

    StackError where that of the file is asked for, and its frames do not share one.
    """
    if given is None:
        return spec.normalisation.window
    asked = parse_window(given)
    if asked == "none":
        return None
    if asked != "file":
        return ends_of(*asked)
    if info.window is None:
        raise StackError(
            f"{info.path}: tells no window that all of its frames share; give --window CENTER,WIDTH"
        )
    return ends_of(*info.window)
