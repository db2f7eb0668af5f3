"""Distances between the surfaces of a class in result and truth, and the Hausdorff distance.

    mask    . # # # .     surface    . # # # .     the pixels of a mask of which one of the four
            . # # # .                . # . # .     neighbours (of six, in volumes) is not of it,
            . # # # .                . # # # .     or would lie beyond the frame

From each surface pixel of one side the distance to the nearest surface pixel of the other is
measured, between centres. HD95 is the 95th percentile of these distances, the larger of the two
directions. MONAI has the same definition. Other programs weight surfaces by their area or pool the
two directions, and get other numbers.

Distances of frames, or of volumes, are pooled before the percentile is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, find_objects
from scipy.spatial import cKDTree

_DECIMALS = 9  # to which equal distances between different pixels are equal numbers
_PERCENTILE = 95


@dataclass(frozen=True, eq=False)
class Distances:
    """Many distances: each that occurs, ascending, and how often."""

    values: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Distances)
            and np.array_equal(self.values, other.values)
            and np.array_equal(self.counts, other.counts)
        )

    def plus(self, other: Distances) -> Distances:
        """Both together."""
        return _counted(
            np.concatenate([self.values, other.values]), np.concatenate([self.counts, other.counts])
        )

    def percentile(self, percent: float) -> float:
        """The percentile with linear interpolation, as NumPy has it; NaN of no distances."""
        if not len(self.values):
            return float("nan")
        ends = np.cumsum(self.counts)
        at = (int(ends[-1]) - 1) * percent / 100
        low, high = self.values[np.searchsorted(ends, [np.floor(at), np.ceil(at)], side="right")]
        return float(low + (high - low) * (at - np.floor(at)))


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances of one class, in both directions."""

    of_result: Distances = field(default_factory=Distances)  # to the surface of the truth
    of_truth: Distances = field(default_factory=Distances)  # to the surface of the result
    one_sided: int = 0
    """Frames, or volumes, in which only one of the two has the class: they have no distances."""

    def plus(self, other: SurfaceDistances) -> SurfaceDistances:
        """The distances of two frames, or volumes, together."""
        return SurfaceDistances(
            self.of_result.plus(other.of_result),
            self.of_truth.plus(other.of_truth),
            self.one_sided + other.one_sided,
        )

    @property
    def hd95(self) -> float:
        """The 95 % Hausdorff distance; NaN where there are no distances."""
        return max(d.percentile(_PERCENTILE) for d in (self.of_result, self.of_truth))


def plane_distances(
    result: NDArray[Any], truth: NDArray[Any], value: int, spacing: Sequence[float]
) -> SurfaceDistances:
    """Distances of one class within a frame (Y, X), whose pixels are `spacing` (Y, X) apart."""
    ours, theirs = (np.argwhere(surface(side == value)) for side in (result, truth))
    return _between(ours, theirs, spacing)


def surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The surface of a mask, of as many axes."""
    out = np.zeros_like(mask)
    for box in find_objects(mask.view(np.int8)):  # one, or none
        out[box] = mask[box] & ~binary_erosion(mask[box])
    return out


class Volume:
    """The class numbers of a volume, plane by plane; surfaces are kept, and two planes."""

    def __init__(self, spacing: Sequence[float]) -> None:
        self._spacing = spacing  # Z, Y, X
        self._sides = _Side(), _Side()

    def add(self, z: int, result: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add the next plane (Y, X), of number `z`. Planes that are skipped are empty."""
        for side, plane in zip(self._sides, (result, truth), strict=True):
            side.add(z, plane)

    def distances(self) -> dict[int, SurfaceDistances]:
        """By class, without 0; of the volume as it was added."""
        ours, theirs = (side.points() for side in self._sides)
        none = np.empty((0, 3), np.int64)
        return {
            value: _between(ours.get(value, none), theirs.get(value, none), self._spacing)
            for value in sorted(ours.keys() | theirs.keys())
        }


class _Side:
    """One side of a volume."""

    def __init__(self) -> None:
        self._points: dict[int, list[NDArray[np.int64]]] = {}
        self._below: NDArray[Any] | None = None
        self._last: tuple[int, NDArray[Any]] | None = None

    def add(self, z: int, plane: NDArray[Any]) -> None:
        # The truth of a frame that was set aside may have another shape: it has no neighbours.
        below = self._last[1] if self._last and z == self._last[0] + 1 else None
        if below is not None and below.shape != plane.shape:
            below = None
        self._close(plane if below is not None else None)
        self._below = below
        self._last = z, plane

    def points(self) -> dict[int, NDArray[np.int64]]:
        """The surface of each class, (voxels, 3): z, y, x."""
        self._close(None)
        self._last = self._below = None
        return {value: np.concatenate(parts) for value, parts in self._points.items()}

    def _close(self, above: NDArray[Any] | None) -> None:
        """Take the surfaces in the last plane, now that its neighbours are known."""
        if self._last is None:
            return
        z, plane = self._last
        for value in map(int, np.unique(plane)):
            if value == 0:
                continue
            mask = plane == value
            inside = mask & ~surface(mask)
            for other in (self._below, above):
                inside &= False if other is None else other == value
            yx = np.argwhere(mask & ~inside)
            points = np.column_stack([np.full(len(yx), z, np.int64), yx])
            self._points.setdefault(value, []).append(points)


def _between(
    ours: NDArray[np.int64], theirs: NDArray[np.int64], spacing: Sequence[float]
) -> SurfaceDistances:
    """Distances between two surfaces, (pixels, axes)."""
    if not len(ours) or not len(theirs):
        return SurfaceDistances(one_sided=int(len(ours) != len(theirs)))
    a, b = ours * np.asarray(spacing), theirs * np.asarray(spacing)
    return SurfaceDistances(_counted(cKDTree(b).query(a)[0]), _counted(cKDTree(a).query(b)[0]))


def _counted(values: NDArray[np.float64], counts: NDArray[np.int64] | None = None) -> Distances:
    found, at = np.unique(np.round(values, _DECIMALS), return_inverse=True)
    totals = np.bincount(at, weights=counts, minlength=len(found))
    return Distances(found, totals.astype(np.int64))
