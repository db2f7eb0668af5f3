"""The strip below a picture: frame, time, and a scale bar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

WHITE, PALE = (255, 255, 255), (200, 200, 200)
SHARE = 0.2  # of a panel's width that a scale bar may take
UNITS = (("s", 1.0, 120.0), ("min", 60.0, 7200.0), ("h", 3600.0, math.inf))  # name, s, used below


@dataclass(frozen=True)
class ScaleBar:
    """A bar and its length in words."""

    length: float  # px of the picture
    label: str  # "50 um"; "100 px", of the frame, where the pixel size is not known


def scale_bar(
    frame_width: int, picture_width: int, pixel_size_um: float | None, um: float | None = None
) -> ScaleBar:
    """The bar for a frame drawn `picture_width` px wide: of `um`, or the longest round one.

    >>> scale_bar(1000, 500, 0.65)  # 650 um are 500 px
    ScaleBar(length=76.92307692307692, label='100 um')
    """
    unit = (pixel_size_um or 1.0) * frame_width / picture_width  # in one px of the picture
    value = _round_below(SHARE * picture_width * unit) if um is None else um
    if pixel_size_um is None:
        value = max(value, 1.0)
    return ScaleBar(value / unit, _length(value) if pixel_size_um else f"{value:g} px")


def _round_below(value: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(n for n in (1, 2, 5) if n * power <= value * (1 + 1e-9)) * power


def _length(um: float) -> str:
    if um >= 1000:
        return f"{um / 1000:g} mm"
    return f"{um:g} um" if um >= 1 else f"{um * 1000:g} nm"


def time_text(t: int, step_s: float, last: int) -> str:
    """The time of frame `t` in s, min or h: one unit, and as many digits, up to frame `last`."""
    name, size, _ = next(u for u in UNITS if last * step_s < u[2])
    step = step_s / size
    digits = 0 if step >= 1 and step == int(step) else max(1, min(math.ceil(-math.log10(step)), 3))
    return f"{t * step:.{digits}f} {name}"


def frame_parts(axes: str, t: int, z: int | str, step_s: float | None, last: int) -> list[str]:
    """Which frame of a stack it is, and when it was; `last` is the stack's last time point."""
    parts = [f"{axis.lower()} {n}" for axis, n in (("T", t), ("Z", z)) if axis in axes]
    return parts + ([time_text(t, step_s, last)] if step_s and "T" in axes else [])


def strip_height(width: int) -> int:
    """Rows that the strip takes under a picture of `width`."""
    return 2 * _size(width)


def draw_strip(width: int, text: str, bar: ScaleBar | None = None) -> NDArray[np.uint8]:
    """White on black: `text` at the left, the bar and its length at the right; (Y, X, 3)."""
    size = _size(width)
    strip = Image.new("RGB", (width, strip_height(width)))
    draw, font = ImageDraw.Draw(strip), _font(size)
    middle, margin, right = strip.height / 2, size / 2, width - size / 2
    if bar is not None:
        length = max(round(bar.length), 1)
        right -= draw.textlength(bar.label, font)
        draw.text((right, middle), bar.label, WHITE, font, anchor="lm")
        right -= size / 2 + length
        thick = max(size // 6, 2)
        top = round(middle - thick / 2)
        left = round(right)
        draw.rectangle((left, top, left + length - 1, top + thick - 1), fill=WHITE)
    draw.text((margin, middle), _fitting(draw, text, font, right - size - margin), PALE, font,
              anchor="lm")  # fmt: skip
    return np.asarray(strip)


def _size(width: int) -> int:
    """Height of the letters, px."""
    return min(max(width // 90, 13), 40)


@lru_cache(maxsize=4)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)  # comes with Pillow: the same letters everywhere


def _fitting(draw: ImageDraw.ImageDraw, text: str, font: Any, width: float) -> str:
    """As much of `text` as fits `width`; the time stands at its end, so the beginning is cut."""
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength("..." + text, font) > width:
        text = text[1:]
    return "..." + text if text else ""
