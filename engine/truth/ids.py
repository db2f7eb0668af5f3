"""From a label image to ids: whole numbers, one for each object, 0 for background; exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import StackError
from engine.labels.components import label_frame, label_part
from engine.truth.image import LabelImage, read_label_image

_MAX_CLASS, _MAX_CLASSES = 255, 20  # largest number, and how many, of what may be classes
# Share of the neighbours in the foreground that are equal, of labels. By what follows from it, none
# of 583 label images (dsb2018, HeLa) and all of 1,068 photographs (with heart_mri) are images.
_EQUAL_NEIGHBOURS = 0.95


def object_ids(image: LabelImage) -> NDArray[Any]:
    """The ids of a label image, integers (Y, X). StackError where it has none.

    Numbers are ids, indices of an indexed image too; so is the grey of three equal samples.
    """
    if not image.is_grey:
        raise StackError(f"{_picture_of(image)}, not a label image; write a number for each object")
    return whole_numbers(image.pixels[..., 0] if image.is_picture else image.pixels)


def read_truth(file: Path, *, masks: bool = False, plane: int | None = None) -> NDArray[Any]:
    """The ids of a file's only label image, integers (Y, X); of a mask those of its pieces.

    Of a file with several, those of number `plane`. Raises StackError with one sentence where
    there is none, or more than one.
    """
    image = read_label_image(file, plane)
    try:
        return pieces(mask(image)) if masks else object_ids(image)
    except StackError as error:
        raise StackError(f"{file}: {error}") from None


def mask(image: LabelImage) -> NDArray[np.bool_]:
    """The foreground of a mask, bool (Y, X). StackError where it has more than one other value.

    Or where 0 is white: some writers then store foreground as 0, and others as the other value.
    """
    if image.says_white:
        raise StackError(
            "its tags say that 0 is white, so it is unclear which of its two values is "
            "foreground; write the mask again with 0 as black"
        )
    if image.pixels.dtype == np.bool_ and not image.is_picture:
        return image.pixels
    ids = object_ids(image)
    foreground: NDArray[np.bool_] = ids != 0
    if foreground.any():
        low, high = ids[foreground].min(), ids[foreground].max()
        if low != high:
            raise StackError(f"has the values {low} and {high}, so it is not a mask; omit --masks")
    return foreground


def pieces(foreground: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """The 8-connected pieces of a mask (Y, X) as labels; the 26-connected ones of (Z, Y, X)."""
    if foreground.ndim == 2:
        return label_frame(foreground)[0]
    labels = np.empty(foreground.shape, np.uint32)
    label_part(foreground, labels, connect_z=True)
    return labels


def whole_numbers(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels as integers; StackError where they are not whole numbers, or negative.

    Some programs write labels as floats, which are accepted up to where floats skip whole numbers.
    """
    if labels.dtype == np.bool_:
        raise StackError(
            "labels are boolean, so all objects have one id; if these are masks of "
            "foreground, give --masks"
        )
    if labels.dtype.kind == "f":
        labels = _whole_floats(labels)
    if labels.dtype.kind not in "iu":
        raise StackError(f"labels must be whole numbers, not {labels.dtype.name} values")
    if labels.dtype.kind == "i" and labels.size and int(labels.min()) < 0:
        raise StackError("labels must not be negative")
    return labels


def numbered_from_one(ids: NDArray[Any]) -> NDArray[np.int32]:
    """Ids replaced by 1, 2, 3, ... in their order; 0 stays 0."""
    found, dense = np.unique(ids, return_inverse=True)
    has_background = found.size > 0 and found[0] == 0
    return (dense.reshape(ids.shape) + (0 if has_background else 1)).astype(np.int32)


class InPieces(NamedTuple):
    """A label image that may hold no objects: its ids have many pieces."""

    ids: int
    pieces: int

    @property
    def is_image(self) -> bool:
        """Whether numbers are brightness rather than ids: too many for classes, and scattered."""
        return self.ids > _MAX_CLASSES

    def hint(self, where: str) -> str:
        """A sentence about it."""
        if self.is_image:
            return (
                f"{where}: looks like an image and not like labels, since its {self.ids:,} values "
                f"lie in {self.pieces:,} separate pieces; give a label image, with a number for "
                "each object"
            )
        if self.ids == 1:
            return (
                f"{where}: the truth has one id and {self.pieces} separate pieces, which count as "
                "one object; if these are masks of foreground, give --masks"
            )
        return (
            f"{where}: the truth has {self.ids} ids and {self.pieces} separate pieces, so "
            "its numbers may be classes; in a truth of objects each object has its own number"
        )


def in_pieces(ids: NDArray[Any]) -> InPieces | None:
    """How many ids have how many pieces; None for a label image whose ids are objects, or none.

    They are not where one id has several pieces, or a few small numbers three times as many; nor
    where numbers differ from pixel to pixel, and have three times as many or one for each pixel.
    """
    foreground = ids != 0
    if not foreground.any():
        return None
    low, high = int(ids[foreground].min()), int(ids.max())
    if low == high:
        count = int(pieces(foreground).max())
        return InPieces(1, count) if count > 1 else None
    found = np.unique(ids[foreground])
    many = 3 * len(found)
    if len(found) <= _MAX_CLASSES:
        if high > _MAX_CLASS:
            return None
    else:
        side_by_side = foreground[..., 1:] & foreground[..., :-1]
        equal = np.count_nonzero(side_by_side & (ids[..., 1:] == ids[..., :-1]))
        if equal >= _EQUAL_NEIGHBOURS * np.count_nonzero(side_by_side):
            return None
        many = min(many, int(np.count_nonzero(foreground)) // 2)  # pieces of less than 2 px each
    from skimage.measure import label

    count = int(label(ids, background=0, connectivity=ids.ndim).max())
    return InPieces(len(found), count) if count >= many else None


def _whole_floats(labels: NDArray[Any]) -> NDArray[Any]:
    odd = labels[~(np.isfinite(labels) & (labels == np.floor(labels)))]
    if odd.size:
        raise StackError(
            f"labels must be whole numbers, not {labels.dtype.name} values such as {odd[0]:g}; "
            "write a number for each object, or masks of 0 and 1 with --masks"
        )
    most = 2 ** (np.finfo(labels.dtype).nmant + 1)
    if labels.size and labels.max() > most:
        raise StackError(
            f"labels beyond {most} are not exact in {labels.dtype.name}; write them as integers"
        )
    return labels.astype(np.int64)


def _picture_of(image: LabelImage) -> str:
    if image.pixels.shape[-1] == 4:
        return "is a picture with an alpha channel"
    return "is a colour picture"
