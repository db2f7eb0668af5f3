"""Instance labels of a binary mask: connected components, by runs of pixels along the rows.

    . # # . . # .      . 1 1 . . 2 .     a run takes the label of what it touches in the rows
    # # # # # # #      1 1 1 1 1 1 1     before; labels that meet in it are one from then on

Labels count in raster order of objects' first pixels, since the least of those that meet stays
(Rosenfeld and Pfaltz 1966; the rest is union-find).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.compiled import compiled

BAND = 256  # rows handled at once where a temporary would be larger than the labels themselves


def label_frame(mask: NDArray[np.bool_], *, corners: bool = True) -> tuple[NDArray[np.uint32], int]:
    """Label the components of `mask`, bool (Y, X), as uint32; and their number.

    8-connected, or 4-connected without `corners`. Ids are 1, 2, 3, ... in raster order of each
    object's first pixel; 0 is background.
    """
    labels = np.empty(mask.shape, dtype=np.uint32)
    return labels, _label(mask[None], labels[None], corners, False)


def label_part(mask: NDArray[np.bool_], out: NDArray[np.uint32], *, connect_z: bool) -> int:
    """Label the components of a part of a stitch group, bool (Z, Y, X), into `out`; their number.

    8-connected in each plane, 26-connected with `connect_z`. Ids count from 1, in raster order.
    """
    return _label(mask, out, True, connect_z)


@compiled
def _label(mask: NDArray[np.bool_], out: NDArray[np.uint32], corners: bool, connect_z: bool) -> int:
    """`label_part`, of the same shape; and over edges alone where not over `corners`."""
    depth, height, width = mask.shape
    reach = 1 if corners else 0
    # Of each label one that is not larger: itself, or one that it met. There may be as many as
    # runs; what is not touched of the array takes no memory.
    parent = np.empty(depth * height * (width // 2 + 1) + 1, dtype=np.uint32)
    parent[0] = count = np.uint32(0)
    for z in range(depth):
        for y in range(height):
            x = 0
            while x < width:
                if not mask[z, y, x]:
                    out[z, y, x] = 0
                    x += 1
                    continue
                start = x
                while x < width and mask[z, y, x]:
                    x += 1
                left, right = max(start - reach, 0), min(x + reach, width)
                label = np.uint32(0)
                if y:
                    label = _met(out, z, y - 1, left, right, parent, label)
                if connect_z and z:
                    for row in range(max(y - 1, 0), min(y + 2, height)):
                        label = _met(out, z - 1, row, left, right, parent, label)
                if label == 0:
                    count += np.uint32(1)
                    label = count
                    parent[label] = label
                for i in range(start, x):
                    out[z, y, i] = label
    found = _count_up(parent, count)
    _paint(out, parent)
    return found


@compiled
def _met(
    labels: NDArray[np.uint32],
    z: int,
    y: int,
    left: int,
    right: int,
    parent: NDArray[np.uint32],
    label: np.uint32,
) -> np.uint32:
    """The least of `label`, unless it is 0, and the labels in a row from `left` to `right`.

    They are one from now on.
    """
    last = np.uint32(0)
    for x in range(left, right):
        other = labels[z, y, x]
        if other == 0 or other == last:
            continue
        last = root = other
        while parent[root] != root:
            parent[root] = parent[parent[root]]
            root = parent[root]
        if label == 0:
            label = root
        elif root < label:
            parent[label] = root
            label = root
        else:
            parent[root] = label
    return label


@compiled
def _count_up(parent: NDArray[np.uint32], count: np.uint32) -> int:
    """Make of `parent` the numbers of labels: 1, 2, 3, ... of those that stayed; how many."""
    stayed = np.uint32(0)
    for label in range(1, count + 1):
        if parent[label] == label:
            stayed += np.uint32(1)
            parent[label] = stayed
        else:  # that is a smaller one, which has its number by now
            parent[label] = parent[parent[label]]
    return int(stayed)


def areas_and_first_pixels(
    labels: NDArray[np.uint32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels, and raster index of the first, of each of `count` labels, (count,) both.

    Labels are (Y, X) or (Z, Y, X). Of a label that does not occur both are 0.
    """
    return _areas_and_first(_volume(labels), count)


def at_border(labels: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Which of `count` labels, (Y, X), touch the border of the frame, (count,)."""
    touches = np.zeros(count + 1, dtype=bool)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        touches[side] = True
    return touches[1:]


def renumber(labels: NDArray[np.uint32], kept: NDArray[np.bool_], first: NDArray[np.int64]) -> int:
    """Drop labels, (Y, X) or (Z, Y, X), that are not `kept`, (count,), in place; how many stay.

    These are numbered from 1 on, in the order of their `first` pixels, (count,).
    """
    order = np.flatnonzero(kept)
    order = order[np.argsort(first[order], kind="stable")]
    new = np.zeros(len(kept) + 1, dtype=np.uint32)
    new[order + 1] = np.arange(1, len(order) + 1, dtype=np.uint32)
    _paint(_volume(labels), new)
    return len(order)


def _volume(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The same as (Z, Y, X): a view."""
    return labels if labels.ndim == 3 else labels[None]


def bands(image: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Views of BAND rows each, from the top: their sums depend on nothing but the image."""
    return (image[start : start + BAND] for start in range(0, len(image), BAND))


@compiled
def _areas_and_first(
    labels: NDArray[np.uint32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`areas_and_first_pixels` of labels (Z, Y, X)."""
    areas, first = np.zeros(count + 1, dtype=np.int64), np.zeros(count + 1, dtype=np.int64)
    depth, height, width = labels.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                label = labels[z, y, x]
                if label:
                    if not areas[label]:
                        first[label] = (z * height + y) * width + x
                    areas[label] += 1
    return areas[1:], first[1:]


@compiled
def _paint(labels: NDArray[np.uint32], new: NDArray[np.uint32]) -> None:
    """Give each pixel, of (Z, Y, X), the `new` one of its label, in place."""
    depth, height, width = labels.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                labels[z, y, x] = new[labels[z, y, x]]
