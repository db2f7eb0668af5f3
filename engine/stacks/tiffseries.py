"""Which of a TIFF's images is the stack, and which of its pages are the stack's frames."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import unescape

from engine.errors import StackError
from engine.stacks.guard import brief

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffFrame, TiffPage, TiffPageSeries

    Page = TiffPage | TiffFrame

_MAX_DIMENSIONS = 32
_MAX_ODD_SHARE = 5  # at most one page in five may differ and still count as a bad frame

_FILE_NAME = re.compile(r"""FileName\s*=\s*("[^"]*"|'[^']*')""")

# What tifffile logs when it goes on with less than the file promises.
_LOST_FRAMES = (
    "metadata invalid or corrupted",
    "invalid shaped series",
    "does not match page shape",
    "circular reference",
    "invalid page offset",
    "corrupted tag list",
    "invalid offset to page",
)


def main_series(tif: TiffFile, name: str) -> TiffPageSeries:
    """The image with the most pixels, the first of equals; StackError where there is none."""
    usable = [s for s in tif.series if s.dtype is not None and _is_shape(s.shape)]
    if not usable:
        raise StackError(f"{name}: holds no image that can be decoded; convert it to plain TIFF")
    return max(usable, key=lambda s: math.prod(s.shape))


def _is_shape(shape: tuple[int, ...]) -> bool:
    """Could an image have this shape? Damaged tags hold fractions and negative numbers."""
    return 2 <= len(shape) <= _MAX_DIMENSIONS and all(type(n) is int and n > 0 for n in shape)


def refuse_lost_frames(messages: Sequence[tuple[int, str]], name: str) -> None:
    """StackError where tifffile logged that it goes on with fewer frames than there should be."""
    for _, message in messages:
        if any(sign in message for sign in _LOST_FRAMES):
            raise StackError(
                f"{name}: its headers promise more frames than can be found; "
                "the file is truncated or damaged: copy or write it again"
            )


def refuse_files_elsewhere(tif: TiffFile, name: str) -> None:
    """StackError where OME metadata speaks of files outside the folder, or of what is no file."""
    folder = Path(tif.filehandle.dirname)
    for quoted in set(_FILE_NAME.findall(tif.ome_metadata or "")):
        other = folder / unescape(quoted[1:-1])
        try:
            ok = other.resolve().parent == folder.resolve()
            ok = ok and (other.is_file() or not other.exists())
        except (OSError, ValueError):
            ok = False
        if not ok:
            raise StackError(
                f"{name}: speaks of frames in {brief(ValueError(quoted))}, which is no file "
                "beside it; write it again"
            )


def series_axes(tif: TiffFile, series: TiffPageSeries) -> tuple[str, tuple[int, ...]]:
    """Letters and shape of all dimensions; "?" for those of length 1 that may be no axes."""
    letters, shape = _unsqueezed(tif, series)
    if series.kind != "shaped":  # every other format lists all its axes, used or not
        letters = "".join(
            a if n > 1 or a in "YXS" else "?" for a, n in zip(letters, shape, strict=True)
        )
    return _one_sample_axis(letters, shape)


def _unsqueezed(tif: TiffFile, series: TiffPageSeries) -> tuple[str, tuple[int, ...]]:
    """Letters and shape of a series of `tif.series`, those of length 1 included.

    Until 2026.5 a series of tifffile has two shapes, since then a file has two lists of series.
    """
    whole: Any = series
    if hasattr(whole, "get_axes"):
        return whole.get_axes(squeeze=False), whole.get_shape(squeeze=False)
    every: Any = tif.series
    whole = every(squeeze=False)[every.index(series)]
    return whole.axes, whole.shape


def _one_sample_axis(letters: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Samples are channels; where the file has channels as well, one of the two must be 1."""
    if "S" not in letters:
        return letters, shape
    at = letters.index("S")
    if shape[at] == 1:
        return letters[:at] + letters[at + 1 :], shape[:at] + shape[at + 1 :]
    if "C" in letters and shape[letters.index("C")] == 1:
        letters = letters.replace("C", "?")
    return letters.replace("S", "C"), shape


def series_pages(
    tif: TiffFile, series: TiffPageSeries, shape: tuple[int, ...]
) -> tuple[list[Page | None], tuple[int, ...]]:
    """The pages of a series and the shape of all, None for a page that is missing.

    In a plain multi-page file tifffile groups the pages that are alike. A few pages of another
    shape amid the others are bad frames: left out, they would shift all that follow.
    """
    pages = [series[i] for i in range(len(series))]
    if series.kind != "generic" or len(pages) < 2:
        return pages, shape
    at = [page.index for page in pages if page is not None and isinstance(page.index, int)]
    odd = sorted(set(range(at[0], at[-1] + 1)) - set(at)) if len(at) == len(pages) else []
    between = [tif.pages[i] for i in odd if len(odd) * _MAX_ODD_SHARE <= len(pages)]
    if not between or any(page.keyframe.is_reduced for page in between if page.keyframe):
        return pages, shape
    by_index = {page.index: page for page in [*pages, *between] if page is not None}
    ordered: list[Page | None] = [by_index[i] for i in range(at[0], at[-1] + 1)]
    return ordered, (len(ordered), *shape[1:])
