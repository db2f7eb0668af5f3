"""Touching nuclei cut apart, component by component: a watershed on the distance to background.

    distance    Euclidean, to the nearest pixel outside; what is beyond the frame is outside
    seeds       h-maxima: peaks that rise by `seed_height` above every pass to a higher one; of
                those nearer to each other than `min_distance` the higher stays, of equals the
                first in raster order
    regions     each floods from its seed (Soille, Morphological Image Analysis, chapters 6 and 9)

What becomes of a component depends on its own pixels only, not even on its place. Still, the
distances of all components are computed at once: between any two components there is background,
and it is nearer than the other component.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.labels.components import bands

STEP = 1 / 64  # px; distances are whole numbers of it, so that equal ones are equal
EIGHT = np.ones((3, 3), dtype=np.uint8)


def split_touching(
    labels: NDArray[np.uint32], count: int, min_distance: float, seed_height: float
) -> int:
    """Give the parts of each of `count` components, (Y, X), labels of their own, in place.

    One part keeps the component's label, the others follow after `count`; returns how many labels
    there are then. `min_distance` and `seed_height` are in px.
    """
    if not count:
        return 0
    distance = _distances(labels)
    height = max(round(seed_height / STEP), 1)
    boxes = ndimage.find_objects(labels.view(np.int32), max_label=count)
    for number in _may_split(labels, distance, count, height):
        box = boxes[number - 1]
        inside = labels[box] == number
        parts = _parts(np.where(inside, distance[box], 0), inside, min_distance, height)
        if parts is None:
            continue
        further = parts > 1
        labels[box][further] = parts[further] - 1 + count
        count += int(parts.max()) - 1
    return count


def _distances(labels: NDArray[np.uint32]) -> NDArray[np.int32]:
    """Distance of each pixel to the nearest one of background, in STEPs, (Y, X)."""
    nearest: Any = ndimage.distance_transform_edt(
        np.pad(labels > 0, 1), return_distances=False, return_indices=True
    )
    out = np.empty(labels.shape, dtype=np.int32)
    columns = np.arange(1, labels.shape[1] + 1)
    top = 1
    for band in bands(out):
        rows = np.arange(top, top + len(band))[:, None]
        y, x = (axis[top : top + len(band), 1:-1] for axis in nearest)
        squares = (y - rows).astype(np.int64) ** 2 + (x - columns).astype(np.int64) ** 2
        band[...] = np.rint(np.sqrt(squares) / STEP)
        top += len(band)
    return out


def _may_split(
    labels: NDArray[np.uint32], distance: NDArray[np.int32], count: int, height: int
) -> NDArray[np.int64]:
    """Components that have two peaks or more, and one of them high enough to be a second seed."""
    from skimage.morphology import local_maxima

    peaks = local_maxima(distance, connectivity=2) & (distance > height)
    marks = np.empty(labels.shape, dtype=np.int32)
    n: Any = ndimage.label(peaks, structure=EIGHT, output=marks)
    where = np.flatnonzero(marks)
    owner = np.zeros(n + 1, dtype=np.int64)
    owner[marks.reshape(-1)[where]] = labels.reshape(-1)[where]
    found: NDArray[np.int64] = np.flatnonzero(np.bincount(owner[1:], minlength=count + 1) > 1)
    return found


def _parts(
    distance: NDArray[np.int32], inside: NDArray[np.bool_], min_distance: float, height: int
) -> NDArray[np.int64] | None:
    """Parts of one component, (Y, X), from 1; None where there is but one."""
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    # A frame of background, so that what fills its box has a shore on all sides.
    distance, inside = np.pad(distance, 1), np.pad(inside, 1)
    lowered = reconstruction(np.maximum(distance - height, 0), distance)
    # Its own maxima, not what rises by `height` above it: of equal peaks that a shallow pass
    # joins, those would be two.
    seeds, n = ndimage.label(local_maxima(lowered, connectivity=2) & inside, structure=EIGHT)
    if n > 1 and min_distance > 0:
        n = _thin_out(seeds, n, distance, min_distance)
    if n < 2:
        return None
    parts: NDArray[np.int64] = watershed(-distance, seeds, mask=inside, connectivity=2)
    return parts[1:-1, 1:-1]


def _thin_out(seeds: NDArray[Any], n: int, distance: NDArray[np.int32], min_distance: float) -> int:
    """Remove seeds nearer than `min_distance` to a higher one, in place; how many stay."""
    y, x = np.nonzero(seeds)
    seed, height = seeds[y, x], distance[y, x]
    order = np.lexsort((x, y, -height))  # the highest pixels first, then as they lie
    _, top = np.unique(seed[order], return_index=True)  # of each seed
    ranked = order[np.sort(top)]
    left = np.stack([y[ranked], x[ranked]], axis=1)
    label, kept = seed[ranked], []
    while len(left):
        kept.append(label[0])
        far = ((left - left[0]) ** 2).sum(axis=1) >= min_distance**2
        far[0] = False
        left, label = left[far], label[far]
    new = np.zeros(n + 1, dtype=seeds.dtype)
    new[np.sort(kept)] = np.arange(1, len(kept) + 1)
    seeds[...] = new[seeds]
    return len(kept)
