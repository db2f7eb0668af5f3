"""Indexed colour: which pages hold colours by index, and what their values become.

A palette turns each value of a page into a colour. What that means depends on the palette, and on
who wrote it:

    palette                                     read as
    black to one colour in even steps           the values: it tints a grey picture
    shades of grey in any other order           the shades, one channel
    anything else                               red, green and blue
    any, in files of ImageJ and microscopes     the values: there a palette is for display only
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError, StackError

if TYPE_CHECKING:
    from tifffile import TiffPage

INDEXED = 3  # PhotometricInterpretation
_PLAIN = ("generic", "uniform", "shaped")  # kinds of images without metadata of a microscope
_AT_ONCE = 2**15  # px; indices are widened to 64 bits while colours are looked up

VALUES, SHADES, COLOURS = "values", "shades", "colours"


@dataclass(frozen=True)
class Palette:
    """The colours of a page's values, and what is read of them."""

    read_as: str  # VALUES, SHADES or COLOURS
    table: NDArray[np.uint8]  # (3, entries)

    def pixels(self, indices: NDArray[Any], channels: slice) -> NDArray[Any]:
        """The pixels that these indices stand for; of colours, (channels, ...)."""
        if self.read_as == VALUES:
            return indices
        flat = indices.reshape(-1).view(np.uint8 if indices.dtype.kind == "b" else indices.dtype)
        table = self.table[channels] if self.read_as == COLOURS else self.table[:1]
        out = np.empty((len(table), flat.size), np.uint8)
        for row, shades in zip(out, table, strict=True):
            for at in range(0, flat.size, _AT_ONCE):
                row[at : at + _AT_ONCE] = shades[flat[at : at + _AT_ONCE]]
        lead = (len(table),) if self.read_as == COLOURS else ()
        return out.reshape(*lead, *indices.shape)

    def coloured(self, pixels: NDArray[Any], channels: slice) -> NDArray[Any]:
        """Pixels (Y, X) that were read as values or as shades in colours, (channels, Y, X)."""
        if self.read_as == VALUES:
            return Palette(COLOURS, self.table).pixels(pixels, channels)
        return np.repeat(pixels[None], 3, axis=0)[channels]


def palette_of(page: TiffPage, kind: str, name: str) -> Palette | None:
    """The palette by which a page is read; None where it has none, or one for display only.

    StackError where its values stand for colours that the file doesn't tell.
    """
    if page.photometric != INDEXED or not is_plain(page, kind):
        return None
    table = _table(page)
    if table is None:
        raise StackError(
            f"{name}: calls its values indices of a palette, but has no palette that covers them "
            "(an entry for each value of one unsigned sample a pixel); convert it to grey or to "
            "red, green and blue"
        )
    return Palette(_read_as(table), table)


def like(first: Palette, page: TiffPage, name: str, n: int) -> Palette:
    """The palette of page `n`, to be read as that of the first; FrameError where it cannot be."""
    if page.photometric != INDEXED:
        raise FrameError(f"{name}: page {n} has no palette, the first has one")
    table = _table(page)
    if table is None:
        raise FrameError(f"{name}: page {n} has lost its palette")
    found = Palette(_read_as(table), table)
    if first.read_as == COLOURS:
        return Palette(COLOURS, table)
    if found.read_as != first.read_as:
        raise FrameError(
            f"{name}: page {n} has a palette of {found.read_as}, the first of {first.read_as}; "
            "convert all pages to grey or to red, green and blue"
        )
    return found


def refuse_palette(page: TiffPage, name: str, n: int) -> None:
    """FrameError where page `n` holds colours by index, and the first page does not."""
    if page.photometric != INDEXED:
        return
    table = _table(page)
    if table is None or _read_as(table) != VALUES:
        raise FrameError(
            f"{name}: page {n} has a palette, the first has none; convert all pages to grey or to "
            "red, green and blue"
        )


def displayed(page: TiffPage, kind: str) -> tuple[str, ...]:
    """A note where a palette for display shows something else than values that grow brighter."""
    if page.photometric != INDEXED or is_plain(page, kind):
        return ()
    table = _table(page)
    if table is None or _read_as(table) == VALUES:
        return ()
    return (
        "its palette is for display: the values are read as intensities, not as colours; convert "
        "it to red, green and blue if you mean the colours",
    )


def is_plain(page: TiffPage, kind: str) -> bool:
    """Whether a page is of a file in which a palette means colours, and is not for display."""
    return kind in _PLAIN and not (page.is_imagej or page.is_ome)


def _table(page: TiffPage) -> NDArray[np.uint8] | None:
    """(3, entries) in 8 bits; None where not every value of the page has an entry."""
    table = page.colormap
    dtype = np.dtype(page.dtype)
    if table is None or np.ndim(table) != 2 or page.samplesperpixel != 1 or dtype.kind not in "bu":
        return None
    if len(table) != 3 or table.shape[1] < 2**page.bitspersample:
        return None
    bits = 8 if table.max(initial=0) > 255 else 0  # some writers leave 8 bits where 16 belong
    return (table >> bits).astype(np.uint8)


def _read_as(table: NDArray[np.uint8]) -> str:
    last = table[:, -1:].astype(np.float64)
    even = last * np.linspace(0, 1, table.shape[1])
    if last.any() and np.abs(table - even).max() <= 1:
        return VALUES
    return SHADES if (table == table[0]).all() else COLOURS
