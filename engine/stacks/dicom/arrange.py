"""Planes to T and Z: sorted by where they lie along the normal, whatever their files are called.

    position along the normal, mm    0     2.5    5      10     12.5
    planes there                     a b   c d    e f    g h    i j
    T = 2: phases of a position      z=0   z=1    z=2  |  z=4   z=5      z=3 is missing: a gap

Slices lie at equal distances. A gap of whole distances counts as slices that are missing, so that
`--frames` can choose those that are not; anything else is no Z axis, and is refused. Planes at one
position are phases where an element says which comes first; otherwise a slice is doubled.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from engine.errors import StackError, plural
from engine.stacks.dicom.header import DicomFile
from engine.stacks.dicom.planes import TIMES, TRIGGER, Plane, Vector, normal
from engine.stacks.guard import some

Unit = tuple[DicomFile, Plane]
Group = tuple[float, list[Unit]]  # position along the normal in mm, the planes there

_SAME = 0.01  # mm; planes that are closer lie at one position
_EQUAL = 0.05  # of the distance between slices, that distances may differ by
_PARALLEL = 1e-3  # that direction cosines may differ by
_UID = re.compile(r"\d+(\.\d+){3,}")
_ONE_BY_ONE = "give --axes TYX to read its slices one by one, without a Z axis"


@dataclass(frozen=True)
class Arrangement:
    """Units along the lead dimensions of a stack."""

    lead: str  # "TZ", "Z", "T", or "" for one frame
    lengths: tuple[int, ...]  # one for each letter of `lead`
    units: tuple[Unit | None, ...]  # in C order of `lead`; None: no file has it
    z_mm: float | None = None  # from slice to slice
    t_s: float | None = None  # from phase to phase
    lacking: str = ""  # a sentence on slices that are missing
    notes: tuple[str, ...] = ()


def arrange(units: Sequence[Unit], path: str, lead: str | None = None) -> Arrangement:
    """Sort the frames of a file or series; StackError where they are no regular stack.

    `lead` is what the user calls the dimensions before a frame; a single letter takes frames one
    by one in the order of their positions, whatever the distances.
    """
    placed = [plane.position is not None and plane.orientation is not None for _, plane in units]
    if not any(placed):
        return _unplaced(units, path, lead)
    if not all(placed):
        raise StackError(
            f"{path}: {len(placed) - sum(placed)} of its {len(placed)} frames have no position in "
            "the patient; put them into a folder of their own"
        )
    direction = _common_normal(units, path)
    groups = _groups(units, direction)
    if lead is not None and len(lead) == 1:
        return _flat([unit for _, found in groups for unit in found], lead)
    phases, time_step = _phases(groups, path)
    slots, step, lacking = _slots([at for at, _ in groups], path)
    planes = dict(zip(slots, phases, strict=True))
    n_t, n_z = len(phases[0]), slots[-1] + 1
    return Arrangement(
        lead=("T" if n_t > 1 else "") + ("Z" if n_z > 1 else ""),
        lengths=tuple(n for n in (n_t, n_z) if n > 1),
        units=tuple(planes[z][t] if z in planes else None for t in range(n_t) for z in range(n_z)),
        z_mm=step,
        t_s=time_step,
        lacking=lacking,
        notes=_shift(groups, direction),
    )


def shown(file: DicomFile) -> str:
    """A file in a sentence; not by its name where that is a UID, as archives have it."""
    name = Path(file.path).name
    return "a file named by its UID" if _UID.search(name) else name


def _unplaced(units: Sequence[Unit], path: str, lead: str | None) -> Arrangement:
    """Frames without positions: those of a file in its order, files by their instance numbers."""
    files = {file.path: (file, plane.number) for file, plane in units}
    notes: tuple[str, ...] = ()
    if len(files) > 1:
        known = [number for _, number in files.values()]
        if None in known or len(set(known)) < len(known):
            raise StackError(
                f"{path}: nothing tells the order of its {len(files)} files, which have neither "
                "positions in the patient nor distinct instance numbers; give them one by one"
            )
        notes = ("its files have no positions; they are frames in order of instance number",)
    order = sorted(units, key=lambda unit: (unit[1].number or 0, unit[1].frame))
    ms = units[0][0].frame_time if len(files) == 1 else None
    flat = _flat(order, (lead or "T")[-1])
    return replace(flat, notes=notes, t_s=ms / 1000 if ms and ms > 0 else None)


def _flat(units: Sequence[Unit], letter: str) -> Arrangement:
    if len(units) == 1:
        return Arrangement("", (), tuple(units))
    mm = units[0][0].slice_spacing if letter == "Z" else None
    return Arrangement(letter, (len(units),), tuple(units), z_mm=mm if mm and mm > 0 else None)


def _common_normal(units: Sequence[Unit], path: str) -> Vector:
    """The normal of all planes; StackError where they are not parallel."""
    first = units[0][1].orientation or ()
    other = [
        file for file, plane in units
        if any(abs(a - b) > _PARALLEL for a, b in zip(first, plane.orientation or (), strict=True))
    ]  # fmt: skip
    if other:
        raise StackError(
            f"{path}: {len(other)} of its {len(units)} slices lie in another direction "
            f"({some([shown(file) for file in other], limit=3)}); put each direction into a folder "
            "of its own"
        )
    direction = normal(first)
    if not any(direction):
        raise StackError(f"{path}: the orientation of its slices is damaged; write it again")
    return direction


def _groups(units: Sequence[Unit], direction: Vector) -> list[Group]:
    """Planes by position along the normal, in order; those of one position by file and frame."""
    placed = sorted(
        (
            (_along(plane, direction), file.path, plane.frame, (file, plane))
            for file, plane in units
        ),
        key=lambda one: one[:3],
    )
    groups: list[Group] = []
    for at, _, _, unit in placed:
        if groups and at - groups[-1][0] < _SAME:
            groups[-1][1].append(unit)
        else:
            groups.append((at, [unit]))
    return groups


def _along(plane: Plane, direction: Vector) -> float:
    return sum(p * n for p, n in zip(plane.position or (), direction, strict=True))


def _phases(groups: Sequence[Group], path: str) -> tuple[list[list[Unit]], float | None]:
    """The planes of each position in order of time, and the time from one to the next in s.

    StackError where positions have different numbers of planes, or nothing tells their order.
    """
    counts = Counter(len(found) for _, found in groups)
    usual = counts.most_common(1)[0][0]
    keys = [i for i in range(len(TIMES)) if all(_tells(i, found) for _, found in groups)]
    if len(counts) > 1 or (usual > 1 and not keys):
        at, found = next(
            (one for one in groups if len(one[1]) != usual or len(counts) == 1), groups[0]
        )
        names = some([shown(file) for file, _ in found], limit=4)
        count = plural(len(found), "slice")
        if usual > 1 and len(counts) > 1:
            raise StackError(
                f"{path}: {count} lie at {at:.2f} mm along the normal ({names}), but {usual} at "
                f"other positions; complete the series, or {_ONE_BY_ONE}"
            )
        raise StackError(
            f"{path}: {count} lie at the same position, {at:.2f} mm along the normal ({names}), "
            f"and nothing tells which comes first; remove the double, or {_ONE_BY_ONE}"
        )
    if usual == 1:
        return [found for _, found in groups], None
    key = keys[0]
    ordered = [sorted(found, key=lambda unit: unit[1].times[key] or 0.0) for _, found in groups]
    times = [plane.times[TRIGGER] for _, plane in ordered[0]]
    if any(time is None for time in times):
        return ordered, None
    return ordered, (float(times[-1] or 0) - float(times[0] or 0)) / (usual - 1) / 1000 or None


def _tells(key: int, found: Sequence[Unit]) -> bool:
    """Whether a kind of time differs between all planes of a position."""
    times = [plane.times[key] for _, plane in found]
    return None not in times and len(set(times)) == len(times)


def _slots(positions: Sequence[float], path: str) -> tuple[list[int], float | None, str]:
    """Z of each position, the distance of slices in mm, and a sentence on those missing."""
    if len(positions) == 1:
        return [0], None, ""
    gaps = [b - a for a, b in pairwise(positions)]
    step = median(gaps)
    slots, missing = [0], []
    for start, gap in zip(positions, gaps, strict=False):
        n = round(gap / step)
        if n < 1 or abs(gap / step - n) > _EQUAL * n or n > len(positions):
            raise StackError(
                f"{path}: its slices lie {step:.2f} mm apart, but those at {start:.2f} and "
                f"{start + gap:.2f} mm along the normal {gap:.2f} mm; put the parts into folders "
                f"of their own, or {_ONE_BY_ONE}"
            )
        if n > 1:
            missing.append(f"{n - 1} between {start:.2f} and {start + gap:.2f} mm")
        slots.append(slots[-1] + n)
    if not missing:
        return slots, step, ""
    lost = slots[-1] + 1 - len(slots)
    lacking = (
        f"{path}: of {slots[-1] + 1} slices, {lost} {'is' if lost == 1 else 'are'} missing along "
        f"the normal ({some(missing)}); complete the series, choose slices that are all there with "
        f"--frames, or {_ONE_BY_ONE}"
    )
    return slots, step, lacking


def _shift(groups: Sequence[Group], direction: Vector) -> tuple[str, ...]:
    """A note where slices are not straight above each other, as with a tilted gantry."""
    planes = [found[0][1] for _, found in groups]
    first, last = planes[0], planes[-1]
    across = [b - a for a, b in zip(first.position or (), last.position or (), strict=True)]
    along = sum(a * n for a, n in zip(across, direction, strict=True))
    aside = sum((a - along * n) ** 2 for a, n in zip(across, direction, strict=True)) ** 0.5
    if aside <= max(first.spacing or (1.0,)):
        return ()
    return (
        f"its last slice lies {aside:.1f} mm beside its first, as with a tilted gantry; slices are "
        "read as they are, and Z is the distance along the normal",
    )
