"""In which units scores are: the size of each stack's voxels, where that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.errors import UsageError

_SMALL = 10.0  # um; sides of pixels below this are a microscope's


@dataclass(frozen=True)
class Scale:
    """The size of a stack's voxels, in the units of its scores."""

    length: str = "px"  # of distances: "mm", "um" or "px"
    volume: str = "voxels"  # "ml", "um^3" or "voxels"
    plane: tuple[float, float] = (1.0, 1.0)  # Y, X
    depth: float | None = None  # from plane to plane; None: not known, so planes are no volume
    voxel: float = 1.0  # its volume

    @property
    def solid(self) -> tuple[float, float, float]:
        """Z, Y, X of a voxel."""
        return (self.depth or 1.0, *self.plane)


def scales(sizes_um: Sequence[Mapping[str, float]]) -> list[Scale]:
    """The scale of each of several stacks, in the same units for all.

    `sizes_um` are the sizes of voxels by axis, as far as they are known. Where one stack does not
    know them, none is measured by them: what is pooled must have one unit.
    """
    if not all(size.get("Y") and size.get("X") for size in sizes_um):
        return [Scale() for _ in sizes_um]
    deep = all(size.get("Z") for size in sizes_um)
    small = min((size["X"] for size in sizes_um), default=0.0) < _SMALL
    length, volume, um, voxel_um3 = ("um", "um^3", 1, 1) if small else ("mm", "ml", 1e3, 1e12)
    found = []
    for size in sizes_um:
        plane = size["Y"] / um, size["X"] / um
        if not deep:
            found.append(Scale(length, plane=plane))
            continue
        voxel = size["Z"] * size["Y"] * size["X"] / voxel_um3
        found.append(Scale(length, volume, plane, size["Z"] / um, voxel))
    return found


def given_sizes(spacing: str) -> dict[str, float]:
    """Sizes in um of `--spacing Y,X` or `Z,Y,X`, which is in mm; UsageError where it is neither."""
    try:
        values = [float(part) for part in spacing.split(",")]
    except ValueError:
        values = []
    if len(values) not in (2, 3) or not all(0 < v < float("inf") for v in values):
        raise UsageError(
            f"--spacing {spacing}: give the size of a voxel in mm as Y,X or as Z,Y,X, "
            "for example 10,1.5,1.5"
        )
    return {axis: 1000 * v for axis, v in zip("ZYX"[-len(values) :], values, strict=True)}
