"""What is scored as one, and which of it are planes of one volume, for distances in 3-D.

Scores of frames count pixels, so a sum of frames is that of their volume. A surface isn't: it needs
the planes above and below. So planes of a volume are scored one after the other, and the distances
of a group are those of its volumes.

- The planes of a time point of a stack with Z are a volume where the distance from plane to plane
  is known.
- Slices that are files of their own tell no distance. Where the user gives it (`--spacing Z,Y,X`)
  and groups them, those of a group are a volume, in the natural order of their names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from engine.results.planes import Number
from engine.results.score.classes import ClassScore, distances_together
from engine.results.score.match import Pair
from engine.results.score.sides import Scored, Sides
from engine.results.score.surfaces import SurfaceDistances, Volume
from engine.stacks.images.files import natural_key

Found = Mapping[str, Mapping[int, SurfaceDistances]]  # by group and class


@dataclass(frozen=True)
class Unit:
    """What is scored as one: a frame, or with `--volumes` the planes of a time point."""

    stack: str
    number: Number
    pairs: tuple[Pair, ...]
    group: str
    sides: Sides

    @property
    def name(self) -> str | None:
        """Of its file."""
        return self.pairs[0].name

    @property
    def is_volume(self) -> bool:
        """Whether it has several planes, at known distances."""
        return len(self.pairs) > 1 and self.sides.scale.depth is not None


@dataclass(frozen=True)
class Place:
    """Where a frame lies in a volume."""

    volume: Hashable
    z: int


def places(units: Sequence[Unit], *, as_slices: bool) -> list[tuple[int, Place | None]]:
    """The numbers of all units, those of a volume together and in order, each with its place.

    With `as_slices`, frames of a group are a volume, unless their stack has planes itself. None
    where a frame is in no volume.
    """
    found = [_place(unit, as_slices=as_slices) for unit in units]
    planes = Counter(place.volume for place in found if place)
    kept = [place if place and planes[place.volume] > 1 else None for place in found]
    volumes = {place.volume: n for n, place in reversed(list(enumerate(kept))) if place}

    def order(n: int) -> tuple[Any, ...]:
        place = kept[n]
        if place is None:
            return n, 0, []
        return volumes[place.volume], place.z, natural_key(units[n].name or units[n].stack)

    numbers = sorted(range(len(units)), key=order)
    if not as_slices:
        return [(n, kept[n]) for n in numbers]
    ranks: Counter[Hashable] = Counter()
    ranked: list[tuple[int, Place | None]] = []
    for n in numbers:
        place = kept[n]
        if place is not None and not units[n].sides.is_deep:
            ranks[place.volume] += 1
            place = replace(place, z=ranks[place.volume])
        ranked.append((n, place))
    return ranked


def _place(unit: Unit, *, as_slices: bool) -> Place | None:
    sides, (first, second) = unit.sides, unit.number
    if sides.classes is None or sides.scale.depth is None or len(unit.pairs) > 1:
        return None
    if sides.is_deep:
        t, z = (0, first) if sides.planes else (first, second)
        return Place((unit.stack, t), z)
    return Place(unit.group, 0) if as_slices else None


class Volumes:
    """The surface distances of groups, gathered while their frames are scored."""

    def __init__(self) -> None:
        self._found: dict[str, dict[int, SurfaceDistances]] = {}
        self._any = False
        self._open: tuple[Hashable, str, Volume] | None = None

    def add_plane(
        self, unit: Unit, place: Place, result: NDArray[Any], truth: NDArray[Any]
    ) -> None:
        """Add a plane of class numbers (Y, X) to its volume."""
        if self._open is None or self._open[0] != place.volume:
            self._close()
            self._open = place.volume, unit.group, Volume(unit.sides.scale.solid)
            self._any = True
        self._open[2].add(place.z, result, truth)

    def add_whole(self, unit: Unit, score: Scored) -> None:
        """Add what has distances of its own: a frame that is in no volume, or a whole volume."""
        if isinstance(score, ClassScore):
            self._any |= unit.is_volume
            self._add(unit.group, score.distances)

    def found(self) -> Found | None:
        """Distances by group and class; None where none is in a volume."""
        self._close()
        return self._found if self._any else None

    def _close(self) -> None:
        if self._open is not None:
            _, group, volume = self._open
            self._add(group, volume.distances())
        self._open = None

    def _add(self, group: str, distances: Mapping[int, SurfaceDistances]) -> None:
        self._found[group] = distances_together(self._found.get(group, {}), distances)
