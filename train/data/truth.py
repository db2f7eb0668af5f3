"""The truth of a frame: objects by number, and where it is known what they are.

A truth that draws only some of a frame's cells says nothing of the rest, which must not be learnt
as background. The challenge's tracking truth marks every cell, so it tells where cells are that
are not drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.errors import StackError
from engine.truth.ids import mask, numbered_from_one, object_ids, pieces, read_truth
from engine.truth.image import LabelImage, read_label_image

Known = NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """Objects of a frame (Y, X): 0 is background, objects are 1, 2, 3, ..."""

    labels: NDArray[np.int32]
    known: Known | None = None  # (Y, X), where labels say what is there; None: everywhere


@dataclass(frozen=True)
class TruthSource:
    """Where the truth of a frame is."""

    file: Path
    plane: int | None = None  # of a file with a plane for each frame; None: it has one
    gold: Path | None = None  # truth of the challenge that overrules `file`
    markers: Path | None = None  # the challenge's tracking truth, a marker in every cell
    cells: int | None = None  # that the frame has, where no markers tell which of them are drawn


def read_frame_truth(
    source: TruthSource, *, masks: bool = False, ignore_label: int | None = None
) -> Truth:
    """Read the truth of one frame; StackError where a file is none."""
    labels, known = _read(source.file, source.plane, masks, ignore_label)
    if source.gold is not None:
        gold, sure = _read(source.gold, None, masks, ignore_label)
        _check_size(source.gold, gold, labels)
        labels, known = overruled(labels, gold), known & sure
    if source.markers is not None:
        markers, _ = _read(source.markers, None, False, None)
        _check_size(source.markers, markers, labels)
        known &= ~near_undrawn(labels, markers)
    elif source.cells is not None and np.count_nonzero(np.unique(labels)) < source.cells:
        known &= labels > 0
    labels = numbered_from_one(np.where(known, labels, 0))
    return Truth(labels, None if known.all() else known)


def overruled(silver: NDArray[Any], gold: NDArray[Any]) -> NDArray[np.int64]:
    """Gold objects over silver ones, (Y, X).

    A silver object that gold covers by more than half is another drawing of the same cell and
    goes; others keep what gold leaves of them.
    """
    ids, numbers, areas = np.unique(silver, return_inverse=True, return_counts=True)
    covered = np.bincount(numbers.ravel(), weights=(gold > 0).ravel(), minlength=len(ids))
    stays = (2 * covered <= areas) & (ids > 0)
    kept = numbered_from_one(np.where(stays[numbers.reshape(silver.shape)], silver, 0))
    over = numbered_from_one(gold)
    return np.where(over > 0, over + int(kept.max()), kept).astype(np.int64)


def near_undrawn(labels: NDArray[Any], markers: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a cell may be that has a marker and is not drawn, (Y, X).

    That is every pixel outside the drawn cells from which such a marker is no further than the
    longest drawn cell is long (the diagonal of its box), since no cell reaches further from a
    marker that lies in it. Where nothing is drawn, it is the whole frame.
    """
    drawn = labels > 0
    ids, numbers, areas = np.unique(markers, return_inverse=True, return_counts=True)
    inside = np.bincount(numbers.ravel(), weights=drawn.ravel(), minlength=len(ids))
    undrawn = ((2 * inside <= areas) & (ids > 0))[numbers.reshape(markers.shape)]
    if not undrawn.any():
        return np.zeros(labels.shape, dtype=bool)
    boxes = [box for box in ndimage.find_objects(numbered_from_one(labels)) if box is not None]
    lengths = [np.hypot(*(side.stop - side.start for side in box)) for box in boxes]
    near = ndimage.distance_transform_edt(~undrawn) <= max(lengths, default=np.inf)
    found: NDArray[np.bool_] = near & ~drawn
    return found


def _read(
    file: Path, plane: int | None, masks: bool, ignore_label: int | None
) -> tuple[NDArray[Any], Known]:
    """Ids of a file's plane, ignored pixels 0, and which pixels are not ignored."""
    if ignore_label is None:
        ids = read_truth(file, masks=masks, plane=plane)
        return ids, np.ones(ids.shape, dtype=bool)
    image = read_label_image(file, plane)
    try:
        if masks and image.pixels.dtype == np.bool_:  # of two values, none is left to be ignored
            ids = pieces(mask(image))
            return ids, np.ones(ids.shape, dtype=bool)
        ids = object_ids(image)
        known: Known = ids != ignore_label
        ids = np.where(known, ids, 0)
        if masks:
            ids = pieces(mask(LabelImage(ids, says_white=image.says_white)))
        return ids, known
    except StackError as error:
        raise StackError(f"{file}: {error}") from None


def _check_size(file: Path, plane: NDArray[Any], expected: NDArray[Any]) -> None:
    if plane.shape != expected.shape:
        has, wants = (f"{p.shape[0]}x{p.shape[1]}" for p in (plane, expected))
        raise StackError(f"{file}: has {has} px, the other truth of the frame {wants} px")
