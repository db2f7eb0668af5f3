"""Pixels of each label in each frame: counted in the labels, and as the objects table has them.

This is what no checksum can show: that labels were wrong already when they were hashed. Counted
here once more, and not by `engine.measure`, whose figures these are compared with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.geometry.layout import Block, LabelLayout
from engine.store.folder import JobFolder

BAND_PIXELS = 2**20  # counted together

LabelAreas = tuple[NDArray[np.int64], NDArray[np.int64]]  # labels, and the area of each in px


@dataclass(frozen=True)
class Areas:
    """The area of each label in each frame, in order of frame and label."""

    frame: NDArray[np.int64]  # number in the layout
    label: NDArray[np.int64]  # of a class map: class, 0 included
    area: NDArray[np.int64]  # px

    def of(self, frame: int) -> LabelAreas:
        """Labels of a frame, and their areas."""
        first, stop = np.searchsorted(self.frame, [frame, frame + 1])
        return self.label[first:stop], self.area[first:stop]


def joined(parts: Sequence[Areas]) -> Areas:
    """One area for each label of a frame, from those of several parts of it."""
    frame, label, area = (
        np.concatenate([np.asarray(getattr(part, name), np.int64) for part in parts])
        for name in ("frame", "label", "area")
    )
    order = np.lexsort((label, frame))
    frame, label, area = frame[order], label[order], area[order]
    is_new = np.ones(len(frame), dtype=bool)
    is_new[1:] = (np.diff(frame) != 0) | (np.diff(label) != 0)
    area = np.add.reduceat(area, np.flatnonzero(is_new)) if len(area) else area
    return Areas(frame[is_new], label[is_new], area)


def count_areas(
    labels: NDArray[Any], block: Block, layout: LabelLayout, *, background: bool
) -> Areas:
    """Areas of the labels (T, Z, Y, X) of a block; of a class map, that of the `background` too."""
    counted = []
    for t, z in block.frames:
        plane = labels[t - block.t[0], z - block.z[0]]
        for label, area in _count(plane, background=background):
            frame = np.full(len(label), layout.frame_index(t, z))
            counted.append(Areas(frame, label, area))
    return joined(counted)


def _count(plane: NDArray[Any], *, background: bool) -> Iterator[LabelAreas]:
    rows = max(BAND_PIXELS // plane.shape[1], 1)
    for top in range(0, len(plane), rows):
        band = plane[top : top + rows]
        values = band.ravel() if background else band[band > 0]
        if int(values.max(initial=0)) > 4 * band.size:  # damaged labels can be anything
            yield np.unique(values, return_counts=True)
            continue
        counts = np.bincount(values.astype(np.int64))
        there = np.flatnonzero(counts)
        yield there, counts[there]


def object_areas(folder: JobFolder, key: str, sha256: str | None, layout: LabelLayout) -> Areas:
    """Areas in a part of the objects table.

    OSError or pyarrow's errors where it cannot be read, ValueError where it is another.
    """
    with folder.own.open(key) as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:  # type: ignore[arg-type]
            raise ValueError("their SHA-256 is not that of the record")
        table = pq.read_table(file, columns=["t", "z", "label", "area_px"])
    t, z, label, area = (column.to_numpy() for column in table.columns)
    frame = (t - layout.t0) * layout.sizes[1] + z - layout.z0
    return joined([Areas(frame, label, area)])
