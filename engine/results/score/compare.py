"""Compare a result with a truth: match stacks by name and frames by number, score, pool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

from engine.errors import UsageError
from engine.results.planes import Number
from engine.results.result import LabelClass, rgb_of
from engine.results.score.classes import ClassScore
from engine.results.score.comparison import Comparison, FrameScore, pool
from engine.results.score.frames import LabelFrames
from engine.results.score.groups import Grouping, grouping
from engine.results.score.match import Match, Pair, match_frames
from engine.results.score.scale import given_sizes, scales
from engine.results.score.sides import Scored, Sides, known_classes
from engine.results.score.sources import (
    open_pictures,
    open_stacks,
    open_truth,
    truths_by_stack,
)
from engine.results.score.volumes import Found, Unit, Volumes, places
from engine.truth.ids import InPieces
from engine.truth.palette import Palette, read_palette


def compare(
    labels: Path | str,
    truth: Path | str,
    ignore_border: int = 0,
    *,
    classes: bool = False,
    volumes: bool = False,
    masks: bool = False,
    group: str | None = None,
    palette: str | None = None,
    spacing: str | None = None,
) -> Comparison:
    """Score labels against a truth, frame by frame.

    Parameters
    ----------
    labels
        Anything `open_stacks` opens.
    truth
        Anything `open_truth` opens; for a result of several stacks a folder with one for each.
    ignore_border
        Margin that is ignored along the sides of every frame, px.
    classes
        Both are class maps. They also are where the metadata of either say so.
    volumes
        Objects continue from plane to plane: the planes of a time point are scored as one.
    masks
        The truth is of masks of foreground: the objects are their connected pieces, in each plane
        or, with `volumes`, in each volume. So are those of boolean `labels`.
    group
        Pattern on the names of the frames' files (or their stacks); frames whose named brackets
        (or first bracket, or match) agree are a group. None: see `grouping`.
    palette
        Name or file of the palette by which colours of the truth are classes.
    spacing
        Size of a voxel in mm, "Y,X" or "Z,Y,X", for all stacks; None: as their metadata say. With
        Z, frames of a group that are no planes of a volume are one, in the order of their names.

    Raises UsageError or StackError with one sentence where that is not possible.
    """
    sizes = given_sizes(spacing) if spacing else None
    stacks = open_stacks(labels)
    colours = read_palette(palette) if palette else None
    truths, left_over = truths_by_stack(truth, list(stacks), labels, pictures=colours is not None)
    opened = _opened(stacks, truths, classes=classes, masks=masks, palette=colours)
    (first, _), *_ = opened.values()
    names = (pair.name or stack for stack, (_, m) in opened.items() for pair in m.pairs)
    groups = grouping(group, names, classes=first.classes is not None)
    measured = scales([sizes or sides.pixel_size_um for sides, _ in opened.values()])
    for (stack, (sides, match)), scale in zip(list(opened.items()), measured, strict=True):
        opened[stack] = replace(sides, scale=scale), match
    units = _units_of(opened, groups, volumes=volumes)
    as_slices = sizes is not None and groups.pattern is not None
    frames, solid = _score(units, ignore_border, as_slices=as_slices)
    return Comparison(
        labels=str(labels),
        truth=str(truth),
        ignore_border=ignore_border,
        frames=frames,
        matched_by=tuple(dict.fromkeys(m.by for _, m in opened.values())),
        without_truth=sum(m.without_truth for _, m in opened.values())
        + sum(len(stacks[name].numbers) for name in stacks.keys() - truths.keys()),
        truth_without_result=sum(m.truth_without_result for _, m in opened.values()) + left_over,
        det_against=tuple(dict.fromkeys(sides.truth.det_against for sides, _ in opened.values())),
        classes=_class_names(first, pool(f.score for f in frames)),
        group=groups.pattern.pattern if groups.pattern else None,
        group_parts=groups.parts,
        masks=masks,
        palette=palette,
        scale=measured[0],
        volumes=solid,
    )


def _opened(
    stacks: Mapping[str, LabelFrames],
    truths: Mapping[str, Path],
    *,
    classes: bool,
    masks: bool,
    palette: Palette | None,
) -> dict[str, tuple[Sides, Match]]:
    """The sides of each stack that has a truth, and which frames are compared."""
    opened: dict[str, tuple[Sides, Match]] = {}
    for stack, where in truths.items():
        ours = stacks[stack]
        theirs = open_pictures(where, palette, ours.classes) if palette else open_truth(where)
        known = known_classes(ours, theirs, classes)
        if known is not None:
            theirs = replace(theirs, markers=None)  # a class map has nothing to detect
            if masks:
                raise UsageError(f"{where}: is of classes, and --masks is about objects; omit it")
        opened[stack] = Sides(ours, theirs, known, masks), match_frames(ours, theirs)
    (first, _), *others = opened.values()
    for other, _ in others:
        if other.kind != first.kind:
            raise UsageError(
                f"{first.ours.path} is scored by {first.kind}, but {other.ours.path} by "
                f"{other.kind}; they have no score in common, so evaluate one at a time"
            )
    return opened


def _units_of(
    opened: Mapping[str, tuple[Sides, Match]], groups: Grouping, *, volumes: bool
) -> list[Unit]:
    return [
        Unit(stack, number, pairs, groups.of(stack, pairs[0].name), sides)
        for stack, (sides, match) in opened.items()
        for number, pairs in _together(match.pairs, volumes=volumes, planes=sides.planes)
    ]


def _together(
    pairs: tuple[Pair, ...], *, volumes: bool, planes: bool
) -> Iterator[tuple[Number, tuple[Pair, ...]]]:
    """Each frame or, of `volumes`, the planes of each time point.

    With `planes`, all frames are planes of one volume.
    """

    def number(pair: Pair) -> Number:
        return (0 if planes else pair.number[0], 0) if volumes else pair.number

    return ((n, tuple(together)) for n, together in groupby(pairs, number))


def _score(
    units: list[Unit], border: int, *, as_slices: bool
) -> tuple[tuple[FrameScore, ...], Found | None]:
    """The score of each unit, in their order, and the distances within volumes by group."""
    volumes = Volumes()
    scored: dict[int, tuple[Scored, InPieces | None]] = {}
    for n, place in places(units, as_slices=as_slices):
        unit = units[n]
        watch = partial(volumes.add_plane, unit, place) if place else None
        scored[n] = unit.sides.score(unit.pairs, border, watch)
        if place is None:
            volumes.add_whole(unit, scored[n][0])
    frames = tuple(
        FrameScore(u.stack, u.number, u.name, u.group, scored[n][0], u.sides, u.pairs, scored[n][1])
        for n, u in enumerate(units)
    )
    return frames, volumes.found()


def _class_names(sides: Sides, pooled: Scored) -> tuple[LabelClass, ...] | None:
    """The classes without background; where nothing names them, by number or colour."""
    if not isinstance(pooled, ClassScore):
        return None
    if sides.classes:
        return tuple(c for c in sides.classes if c.value)
    if sides.is_coloured():
        colors = {value: f"#{value:06x}" for value in pooled.areas}
        return tuple(LabelClass(value, color, rgb_of(color)) for value, color in colors.items())
    return tuple(LabelClass(value, f"class {value}", (255, 255, 255)) for value in pooled.areas)
