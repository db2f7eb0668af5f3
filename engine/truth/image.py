"""Files of label images, read as the numbers that were written, not as they would be displayed.

Pixels for the network become at most float32, which would merge ids beyond 2**24, and an indexed
PNG comes as colours. Here numbers keep their dtype, and indices stay indices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import StackError, StacksegError, first_line
from engine.stacks.images.coded import without_opaque_alpha
from engine.stacks.images.files import sniff
from engine.stacks.tiff.page import JPEG
from engine.stacks.tiff.stack import says_white
from engine.truth.png import read_png

if TYPE_CHECKING:
    from tifffile import TiffPage

    from engine.stacks.tiff.stack import TiffStack

SEPARATE = 2  # of a TIFF's planar configuration
INDEXED = 3  # of a TIFF's photometric interpretation
PACKERS_WITH_LOSS = {  # of a TIFF's compression
    22610: "JPEG XR",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34887: "LERC",
    34927: "WebP",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
LOSSY = "is JPEG, whose compression changes ids; save labels as PNG or TIFF"


@dataclass(frozen=True)
class LabelImage:
    """One plane of labels, as read."""

    pixels: NDArray[Any]
    """(Y, X), numbers in the dtype of the file; or (Y, X, 3 or 4), a picture. The fourth sample of
    a picture is an alpha channel that is not opaque everywhere: one that is was dropped."""
    palette: NDArray[np.uint8] | None = None
    """(colours, 3), where numbers are indices into it: red, green, blue."""
    says_white: bool = False
    """Whether tags say that 0 is white. Ids don't change by that; masks become doubtful."""

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


class LabelFile:
    """A TIFF or PNG file of label planes, each read on demand.

    Raises StackError with one sentence where the file is neither, is JPEG, is damaged, or has
    channels.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.numbers: tuple[tuple[int, int], ...] = ((0, 0),)
        """(t, z) of every plane; the planes of one volume, and samples that lie apart, along t."""
        self.is_volume = False
        """Whether planes are those of one volume."""
        self._stack: TiffStack | None = None
        with _of(file):
            if _kind(file) == "TIFF":
                self._open_tiff()

    def _open_tiff(self) -> None:
        self._stack = stack = _open_tiff(self.file)
        info = stack.info
        ts, zs = range(info.size("T")), range(info.size("Z"))
        self.is_volume = len(ts) == 1 and len(zs) > 1
        if _lie_apart(stack):
            self.numbers = tuple((n, 0) for n in range(info.n_frames * info.size("C")))
        elif self.is_volume:
            self.numbers = tuple((z, 0) for z in zs)
        else:
            self.numbers = tuple((t, z) for t in ts for z in zs)

    def plane(self, index: int) -> LabelImage:
        """A plane, by its place in `numbers`."""
        with _of(self.file):
            if self._stack is not None:
                return _plane(self._stack, index)
            pixels, palette = read_png(self.file.read_bytes())
            return LabelImage(_picture(pixels) if pixels.ndim == 3 else pixels, palette)

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        if self._stack is not None:
            self._stack.close()


def read_label_images(file: Path) -> list[LabelImage]:
    """The planes of a TIFF or PNG file, in order; of most files, one. Raises as `LabelFile`."""
    labels = LabelFile(file)
    try:
        return [labels.plane(i) for i in range(len(labels.numbers))]
    finally:
        labels.close()


def read_label_image(file: Path, plane: int | None = None) -> LabelImage:
    """Plane number `plane` of a file, or its only one. Raises as `LabelFile`."""
    labels = LabelFile(file)
    try:
        count = len(labels.numbers)
        if plane is None and count != 1:
            raise StackError(f"{file}: holds {count} label images; give a file for each")
        return labels.plane(plane or 0)
    finally:
        labels.close()


def count_label_images(file: Path) -> int:
    """How many planes a file holds; one that cannot be read counts as one."""
    try:
        return len(LabelFile(file).numbers)
    except StackError:  # it is read, and named, later
        return 1


def _open_tiff(file: Path) -> TiffStack:
    """The labels of a TIFF, in their own dtype; StackError where they are not one whole stack."""
    from engine.stacks.tiff.open import open_tiff

    stacks = open_tiff(str(file), exact=True)  # which leaves no file open
    if len(stacks) > 1:
        raise StackError(f"holds {len(stacks)} images; labels are read from files of one image")
    (stack,) = stacks
    info, key = stack.info, stack.key
    code = int(key.compression)
    if code in JPEG:
        raise StackError(LOSSY)
    if code in PACKERS_WITH_LOSS and not _is_reversible(key):
        raise StackError(
            f"is compressed as {PACKERS_WITH_LOSS[code]}, which may change ids; "
            "compress labels with zlib, LZW or zstd"
        )
    if info.lacking:
        raise StackError(info.lacking)
    if info.size("C") > 1 and not _lie_apart(stack):
        if key.samplesperpixel == 1:
            raise StackError(f"has {info.size('C')} channels; labels have one")
        if info.n_frames > 1:
            raise StackError("holds several colour pictures, not labels")
    return stack


def _is_reversible(page: TiffPage) -> bool:
    """Whether a page is JPEG 2000 by the wavelet that loses nothing (ISO 15444-1, marker COD)."""
    file = page.parent.filehandle
    file.open()
    try:
        file.seek(page.dataoffsets[0])
        data = file.read(min(page.databytecounts[0], 4096))
    finally:
        file.close()
    at = data.find(b"\xff\x52", data.find(b"\xff\x4f\xff\x51"))
    return at >= 0 and data[at + 13 : at + 14] == b"\x01"


@contextmanager
def _of(file: Path) -> Iterator[None]:
    """Turns every failure into a StackError about `file`."""
    try:
        yield
    except StacksegError as error:
        about = "" if str(error).startswith(f"{file}: ") else f"{file}: "
        raise StackError(f"{about}{error}") from None
    except Exception as error:  # tifffile and imagecodecs raise what they like
        raise StackError(f"{file}: cannot be read as labels ({first_line(error)})") from error


def _kind(file: Path) -> str:
    """ "TIFF" or "PNG", by the first bytes."""
    with file.open("rb") as stream:
        kind = sniff(stream.read(8))
    if kind == "JPEG":
        raise StackError(LOSSY)
    if kind is None:
        raise StackError("is not a label image; labels are read from TIFF, PNG, Zarr and folders")
    return kind


def _plane(stack: TiffStack, index: int) -> LabelImage:
    """A plane (Y, X), or a picture (Y, X, 3 or 4)."""
    channels = stack.info.size("C")
    apart = _lie_apart(stack)
    at, sample = divmod(index, channels) if apart else (index, 0)
    t, z = divmod(at, stack.info.size("Z"))
    pixels = stack.read(t, z, [sample] if apart else range(channels))
    if stack.key.photometric == INDEXED and pixels.dtype == np.bool_:
        pixels = pixels.view(np.uint8)  # of two colours: 0 and 1 are indices
    if len(pixels) == 1:
        return LabelImage(pixels[0], says_white=says_white(stack.key))
    return LabelImage(_picture(np.moveaxis(pixels, 0, -1)))


def _lie_apart(stack: TiffStack) -> bool:
    """Whether samples lie apart, which is what tifffile makes of 3 or 4 frames."""
    return stack.info.size("C") > 1 and stack.key.planarconfig == SEPARATE


def _picture(pixels: NDArray[Any]) -> NDArray[Any]:
    """Samples (Y, X, S) without an opaque alpha, and without an axis for a single one."""
    pixels, letters = without_opaque_alpha(pixels, "YXC")
    if letters == "YX":
        return pixels
    if pixels.shape[-1] not in (3, 4):
        raise StackError(
            f"has {pixels.shape[-1]} samples per pixel; labels have one, and no alpha channel"
        )
    return pixels
