"""Truth whose colours are classes: from a picture to a class number for each pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import StackError, plural
from engine.stacks.images.files import sniff
from engine.stacks.open import open_stack
from engine.truth.image import read_label_image
from engine.truth.palette import Palette


def read_classes(file: Path, palette: Palette, plane: int | None = None) -> NDArray[np.int32]:
    """Class numbers (Y, X) of a mask; StackError where a colour is that of no class.

    Of a file of several masks, those of number `plane`. A grey mask counts as one whose red, green
    and blue are equal.
    """
    return class_numbers(_colours(file, plane, palette), palette, file)


def class_numbers(picture: NDArray[np.uint8], palette: Palette, file: Path) -> NDArray[np.int32]:
    """Class numbers (Y, X) of colours (Y, X, 3): the nearest class within the tolerance."""
    packed = picture.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    values, at = np.unique(packed, return_inverse=True)
    rgb = np.stack([values >> 16, values >> 8 & 255, values & 255], axis=1)
    colours, classes = palette.table
    distance = np.stack(
        [np.sqrt(((rgb - colour) ** 2).sum(axis=1)) for colour in colours.astype(np.int32)]
    )
    if (lost := distance.min(axis=0) > palette.tolerance).any():
        raise StackError(_unknown(values, lost, at.reshape(packed.shape), palette, file))
    numbers: NDArray[np.int32] = classes[distance.argmin(axis=0)][at].reshape(packed.shape)
    return numbers


def _unknown(
    values: NDArray[np.int32],
    lost: NDArray[np.bool_],
    at: NDArray[np.intp],
    palette: Palette,
    file: Path,
) -> str:
    """Words on the most frequent of the colours that are of no class."""
    counts = np.bincount(at.ravel(), minlength=len(values)) * lost
    most = int(counts.argmax())
    y, x = np.argwhere(at == most)[0]
    others = int(np.count_nonzero(lost)) - 1
    more = f" (and {plural(others, 'other colour')} like it)" if others else ""
    within = f" within {palette.tolerance:g}" if palette.tolerance else ""
    pixels = plural(int(counts[most]), "pixel")
    return (
        f"{file}: has the colour #{values[most]:06x} in {pixels}{more}, "
        f"the first at row {y}, column {x}, which is that of no class{within} ({palette}); add it "
        "to the palette, or raise the palette's tolerance"
    )


def _colours(file: Path, plane: int | None, palette: Palette) -> NDArray[np.uint8]:
    """The picture (Y, X, 3) of a mask."""
    with file.open("rb") as stream:
        is_jpeg = sniff(stream.read(8)) == "JPEG"
    if is_jpeg and not palette.tolerance:
        raise StackError(
            f"{file}: is JPEG, which changes colours; save masks as PNG, or give the palette a "
            "tolerance (60, or 230 where colours have half the resolution, as in most JPEG files)"
        )
    pixels = _decoded(file) if is_jpeg else _as_written(file, plane)
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype != np.uint8:
        raise StackError(f"{file}: colours of classes have 8 bits, not {pixels.dtype.name}")
    if pixels.ndim == 3:
        if pixels.shape[-1] == 4:
            raise StackError(f"{file}: is transparent in places; save masks without transparency")
        return pixels
    return np.repeat(pixels[..., None], 3, axis=-1)


def _decoded(file: Path) -> NDArray[Any]:
    with open_stack(str(file)) as stack:
        return np.moveaxis(stack.read(0, 0, list(range(stack.info.size("C")))), 0, -1).squeeze()


def _as_written(file: Path, plane: int | None) -> NDArray[Any]:
    image = read_label_image(file, plane)
    coloured = image.coloured()
    return image.pixels if coloured is None else coloured
