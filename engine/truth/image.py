"""Files of label images, read as the numbers that were written and not as what they look like.

`engine.stacks` reads pixels for the network: its float32 would merge ids beyond 2**24, and an
indexed image comes as colours. Here numbers keep their dtype, and indices stay indices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import StackError, StacksegError, first_line
from engine.stacks.coded import without_opaque_alpha
from engine.stacks.guard import tifffile_messages
from engine.stacks.images import sniff
from engine.truth.png import read_png

if TYPE_CHECKING:
    from tifffile import TiffPageSeries

JPEG_CODES = (6, 7, 33007, 34892)  # of a TIFF's compression
INDEXED = 3  # of a TIFF's photometric interpretation
LOSSY = "is JPEG, which changes ids when it is written; keep labels as PNG or TIFF"


@dataclass(frozen=True)
class LabelImage:
    """One plane of labels, not yet looked at."""

    pixels: NDArray[Any]
    """(Y, X), numbers in the dtype of the file; or (Y, X, 3 or 4), a picture. The fourth sample of
    a picture is an alpha channel that is not opaque everywhere: one that is was dropped."""
    palette: NDArray[np.uint8] | None = None
    """(colours, 3), where numbers are indices into it: red, green, blue."""

    @property
    def is_picture(self) -> bool:
        """Whether pixels have several samples."""
        return self.pixels.ndim == 3

    @property
    def is_grey(self) -> bool:
        """Whether pixels are numbers, or three equal samples, which stand for one."""
        if not self.is_picture:
            return True
        red, green, blue = (self.pixels[..., i] for i in range(3))
        equal = np.array_equal(red, green) and np.array_equal(red, blue)
        return equal and self.pixels.shape[-1] == 3

    def coloured(self) -> NDArray[Any] | None:
        """The picture, (Y, X, 3 or more), which of indices is made by the palette; else None."""
        if self.palette is None:
            return self.pixels if self.is_picture else None
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(self.palette)] = self.palette
        picture: NDArray[Any] = colours[self.pixels]
        return picture


def read_label_images(file: Path) -> list[LabelImage]:
    """The planes of a TIFF or PNG file, in the order of its pages; of most files, one.

    Raises StackError with one sentence where the file is neither, is JPEG, is damaged, or has
    channels.
    """
    from tifffile import TiffFile

    with _of(file):
        kind = _kind(file)
        if kind == "PNG":
            pixels, palette = read_png(file.read_bytes())
            return [LabelImage(_picture(pixels) if pixels.ndim == 3 else pixels, palette)]
        with tifffile_messages(), TiffFile(file) as tiff:
            return [LabelImage(plane) for plane in _planes(tiff.series[0])]


def count_label_images(file: Path) -> int:
    """How many planes a file holds; one that cannot be read counts as one."""
    from tifffile import TiffFile

    try:
        if _kind(file) != "TIFF":
            return 1
        with tifffile_messages(), TiffFile(file) as tiff:
            series = tiff.series[0]
    except Exception:  # it is read, and named, later
        return 1
    is_labels = series.axes.endswith("YX") and _channels(series) == 1
    return math.prod(series.shape[:-2]) if is_labels else 1


def check_label_file(file: Path) -> None:
    """StackError where a file is neither TIFF nor PNG, or is JPEG within."""
    from tifffile import TiffFile

    with _of(file):
        if _kind(file) == "TIFF":
            with tifffile_messages(), TiffFile(file) as tiff:
                _refuse_lossy(tiff.series[0])


@contextmanager
def _of(file: Path) -> Iterator[None]:
    """Turns every failure into a StackError about `file`."""
    try:
        yield
    except StacksegError as error:
        raise StackError(f"{file}: {error}") from None
    except Exception as error:  # tifffile and imagecodecs raise what they like
        raise StackError(f"{file}: cannot be read as labels ({first_line(error)})") from error


def _kind(file: Path) -> str:
    """ "TIFF" or "PNG", by the first bytes."""
    with file.open("rb") as stream:
        kind = sniff(stream.read(8))
    if kind == "JPEG":
        raise StackError(LOSSY)
    if kind is None:
        raise StackError("is no label image; labels are read from TIFF, PNG, Zarr and folders")
    return kind


def _refuse_lossy(series: TiffPageSeries) -> None:
    if int(series.keyframe.compression) in JPEG_CODES:
        raise StackError(LOSSY)


def _planes(series: TiffPageSeries) -> list[NDArray[Any]]:
    """The planes of a TIFF: (Y, X) each, or one picture (Y, X, 3 or 4)."""
    _refuse_lossy(series)
    pixels, axes = np.asarray(series.asarray()), series.axes
    if series.keyframe.photometric == INDEXED and pixels.dtype == np.bool_:
        pixels = pixels.view(np.uint8)  # of two colours: 0 and 1 are indices all the same
    if axes.endswith("S"):  # samples that lie apart are what tifffile makes of 3 or 4 frames
        if math.prod(pixels.shape[:-3]) > 1:
            raise StackError("holds several colour pictures, not labels")
        return [_picture(pixels.reshape(pixels.shape[-3:]))]
    if _channels(series) > 1:
        raise StackError(f"has {_channels(series)} channels; labels have one")
    if not axes.endswith("YX"):
        raise StackError(f"has the axes {axes}; those of labels end in YX")
    return list(pixels.reshape(-1, *pixels.shape[-2:]))


def _channels(series: TiffPageSeries) -> int:
    return dict(zip(series.axes, series.shape, strict=True)).get("C", 1)


def _picture(pixels: NDArray[Any]) -> NDArray[Any]:
    """Samples (Y, X, S) without an opaque alpha, and without an axis for a single one."""
    pixels, letters = without_opaque_alpha(pixels, "YXC")
    if letters == "YX":
        return pixels
    if pixels.shape[-1] not in (3, 4):
        raise StackError(
            f"has {pixels.shape[-1]} samples a pixel; labels have one, without an alpha channel"
        )
    return pixels
