"""Instance labels of a binary mask: connected components."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.labels.runs import components_of, runs_of_mask

EIGHT = np.ones((3, 3), dtype=np.uint8)
BAND = 256  # rows handled at once where a temporary would be larger than the labels themselves


def label_frame(mask: NDArray[np.bool_]) -> tuple[NDArray[np.uint32], int]:
    """Label the 8-connected components of `mask`, bool (Y, X), as uint32; and their number.

    Ids are 1, 2, 3, ... in raster order of each object's first pixel; 0 is background.
    """
    runs = runs_of_mask(mask)
    if runs.is_noise:
        labels = np.empty(mask.shape, dtype=np.uint32)
        found: Any = ndimage.label(mask, structure=EIGHT, output=labels)
        return labels, int(found)
    component, count = components_of(runs)
    return runs.painted((component + 1).astype(np.uint32)), count


def label_part(mask: NDArray[np.bool_], out: NDArray[np.uint32], *, connect_z: bool) -> int:
    """Label the components of a part of a stitch group, bool (Z, Y, X), into `out`; their number.

    8-connected in each plane, 26-connected with `connect_z`. Ids count from 1, in raster order.
    """
    structure = np.zeros((3, 3, 3), dtype=np.uint8)
    structure[slice(None) if connect_z else 1] = 1
    count: Any = ndimage.label(mask, structure=structure, output=out)
    return int(count)


def label_areas(labels: NDArray[np.uint32], count: int) -> NDArray[np.int64]:
    """Pixels of each of `count` labels, (count,), in any shape."""
    areas = np.zeros(count + 1, dtype=np.int64)
    for band in bands(labels.reshape(-1, labels.shape[-1])):
        areas += np.bincount(band.reshape(-1), minlength=count + 1)
    return areas[1:]


def first_pixels(labels: NDArray[np.uint32], count: int) -> NDArray[np.int64]:
    """Raster index of the first pixel of each of `count` labels, (count,), in any shape."""
    rows = labels.reshape(-1, labels.shape[-1])
    first = np.zeros(count + 1, dtype=np.int64)
    for start in reversed(range(0, len(rows), BAND)):
        band = rows[start : start + BAND].reshape(-1)
        inside = np.flatnonzero(band)[::-1]
        # Of equal indices the last assignment stays: that of the first pixel.
        first[band[inside]] = inside + start * labels.shape[-1]
    return first[1:]


def at_border(labels: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Which of `count` labels, (Y, X), touch the border of the frame, (count,)."""
    touches = np.zeros(count + 1, dtype=bool)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        touches[side] = True
    return touches[1:]


def bands(image: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Views of BAND rows each, from the top: their sums depend on nothing but the image."""
    return (image[start : start + BAND] for start in range(0, len(image), BAND))
