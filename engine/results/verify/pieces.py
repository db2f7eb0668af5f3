"""What the labels of a plane say by themselves: ids, areas, centres, first pixels.

Counted here anew, and not by `engine.measure.frames`, whose figures these are held against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

BAND_PIXELS = 2**20  # looked at together


@dataclass(frozen=True)
class Pieces:
    """One value per label of a frame, or of a region of one, in order of label."""

    label: NDArray[np.int64]
    area: NDArray[np.int64]  # px
    sum_y: NDArray[np.float64]  # of pixel indices in the frame
    sum_x: NDArray[np.float64]
    first: NDArray[np.int64]  # raster index in the frame of the first pixel


def pieces_of(
    plane: NDArray[Any], origin: tuple[int, int], width: int, *, background: bool
) -> Pieces:
    """Count a region of a frame, labels (Y, X). `origin` is its first pixel, `width` the frame's.

    With `background`, which class maps (uint8) ask for, the label 0 is counted too, and nothing
    but areas is.
    """
    rows = max(BAND_PIXELS // plane.shape[1], 1)
    found = []
    for top in range(0, len(plane), rows):
        band = plane[top : top + rows]
        found.append(_pieces(band, (origin[0] + top, origin[1]), width, background))
    return merged(found)


def _pieces(band: NDArray[Any], origin: tuple[int, int], width: int, background: bool) -> Pieces:
    if background:  # classes lie anywhere: they are only counted
        area = np.bincount(np.ascontiguousarray(band).reshape(-1))
        there = np.flatnonzero(area)
        zeros = np.zeros(len(there))
        return Pieces(there, area[there], zeros, zeros, 0 * there)
    y, x = np.nonzero(band)
    ids = band[y, x]
    if not len(ids):
        none = np.zeros(0, np.int64)
        return Pieces(none, none, np.zeros(0), np.zeros(0), none)
    # Damaged labels can be anything: only small ones are counted by place.
    if int(ids.max()) <= 4 * band.size:
        dense, names = ids.astype(np.int64), None
    else:
        names, dense = np.unique(ids, return_inverse=True)
    area = np.bincount(dense)
    there = np.flatnonzero(area)
    first = np.zeros(len(area), np.int64)
    first[dense[::-1]] = np.arange(len(dense))[::-1]  # of equal indices the last assignment stays
    at = first[there]
    area = area[there]
    return Pieces(
        label=there if names is None else names.astype(np.int64),
        area=area,
        sum_y=np.bincount(dense, weights=y)[there] + float(origin[0]) * area,
        sum_x=np.bincount(dense, weights=x)[there] + float(origin[1]) * area,
        first=(y[at] + origin[0]) * width + x[at] + origin[1],
    )


def merged(found: Sequence[Pieces]) -> Pieces:
    """One value per label, from those of several regions."""
    if len(found) == 1:
        return found[0]
    columns = {f.name: np.concatenate([getattr(p, f.name) for p in found]) for f in fields(Pieces)}
    order = np.argsort(columns["label"], kind="stable")
    columns = {name: values[order] for name, values in columns.items()}
    label = columns["label"]
    starts = np.flatnonzero(np.r_[True, label[1:] != label[:-1]][: len(label)])
    if not len(starts):
        return found[0]
    return Pieces(
        label=label[starts],
        area=np.add.reduceat(columns["area"], starts),
        sum_y=np.add.reduceat(columns["sum_y"], starts),
        sum_x=np.add.reduceat(columns["sum_x"], starts),
        first=np.minimum.reduceat(columns["first"], starts),
    )
