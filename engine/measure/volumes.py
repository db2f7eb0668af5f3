"""Volumes of classes: voxels of every plane of a time point, and what they measure in ml."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from engine.measure.frames import Measures

ML = 1e-12  # of a um^3

VolumeRow = dict[str, str | int | float | None]  # a row of the volumes table


def voxel_ml(pixel_size_um: Mapping[str, float]) -> float | None:
    """Volume of a voxel in ml; None where the size along Z, Y or X is not known."""
    if not {"Z", "Y", "X"} <= set(pixel_size_um):
        return None
    return math.prod(pixel_size_um[axis] for axis in "ZYX") * ML


class Volumes:
    """The voxels of each class of a stack by time point, from the measures of its planes."""

    def __init__(self, class_names: Sequence[str], pixels: int, voxel: float | None) -> None:
        """`class_names` with the background first, px of a plane, ml of a voxel."""
        self._names = tuple(class_names[1:])
        self._pixels, self._voxel = pixels, voxel
        self._voxels: dict[int, list[int]] = {}  # by time point, of each class
        self._failed: dict[int, int] = {}  # planes that were set aside

    def add(self, t: int, measures: Measures | None) -> None:
        """Add a plane by its columns of the frames table; None: it was set aside."""
        voxels = self._voxels.setdefault(t, [0] * len(self._names))
        self._failed.setdefault(t, 0)
        if measures is None:
            self._failed[t] += 1
            return
        for n, name in enumerate(self._names):
            # A binary model's one class is its foreground.
            fraction = measures.get(f"fraction_{name}", measures["foreground_fraction"])
            voxels[n] += round((fraction or 0) * self._pixels)

    def rows(self, stack: str) -> Iterator[VolumeRow]:
        """Rows of the volumes table, in order of time point and class."""
        for t, voxels in self._voxels.items():
            for name, count in zip(self._names, voxels, strict=True):
                volume = None if self._voxel is None or self._failed[t] else count * self._voxel
                yield {
                    "stack": stack,
                    "t": t,
                    "class": name,
                    "voxels": count,
                    "volume_ml": volume,
                    "frames_failed": self._failed[t],
                }
