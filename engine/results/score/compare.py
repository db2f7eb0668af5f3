"""Compare a result with a truth: match stacks by name and frames by number, score, pool."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import groupby
from operator import add
from pathlib import Path
from typing import Any

from engine.errors import UsageError
from engine.results.planes import Number
from engine.results.result import LabelClass, rgb_of
from engine.results.score.classes import ClassScore, mean
from engine.results.score.match import Match, Pair, match_frames
from engine.results.score.sides import Scored, Sides, known_classes
from engine.results.score.sources import open_stacks, open_truth, truths_by_stack
from engine.truth.ids import InPieces


@dataclass(frozen=True)
class FrameScore:
    """The score of one frame, or of all planes of a time point as one."""

    stack: str
    number: Number
    name: str | None  # of its file
    group: str
    score: Scored
    sides: Sides
    pairs: tuple[Pair, ...]
    in_pieces: InPieces | None = None  # where the truth may hold no objects

    @property
    def set_aside(self) -> bool:
        """Whether the job set some of it aside, so that it has no labels there."""
        return any(pair.ours in self.sides.ours.failed for pair in self.pairs)


@dataclass(frozen=True)
class Comparison:
    """The scores of every frame that has both a result and a truth."""

    labels: str  # paths, as given
    truth: str
    ignore_border: int  # px
    frames: tuple[FrameScore, ...]  # by stack, then (t, z)
    matched_by: tuple[str, ...]  # number, name, order: what the frames of the stacks agree by
    without_truth: int  # frames of the result
    truth_without_result: int  # frames of the truth
    det_against: tuple[str, ...] = ()  # what DET is computed from, by stacks that differ in it
    classes: tuple[LabelClass, ...] | None = None  # of class maps, without background
    group: str | None = None  # pattern on the frames' names
    masks: bool = False  # the objects of the truth are the pieces of masks

    @cached_property
    def n_stacks(self) -> int:
        """Stacks that have a frame."""
        return len({f.stack for f in self.frames})

    @cached_property
    def is_deep(self) -> bool:
        """Whether frames are of several planes."""
        return any(f.number[1] for f in self.frames)

    @cached_property
    def pooled(self) -> Scored:
        """All frames as one."""
        return _pooled(f.score for f in self.frames)

    @property
    def groups(self) -> dict[str, Scored]:
        """The frames of each group pooled: of each stack, or of those whose names agree.

        Empty where there is one stack and no pattern.
        """
        if self.group is None and self.n_stacks == 1:
            return {}
        found: dict[str, list[Scored]] = {}
        for frame in self.frames:
            found.setdefault(frame.group, []).append(frame.score)
        return {name: _pooled(scores) for name, scores in found.items()}

    def scores(self, score: Scored) -> dict[str, float]:
        """Every score by its name; NaN where one is not defined."""
        return score.scores(self.classes or ())

    def mean_of_groups(self) -> dict[str, float]:
        """The mean over groups of each score, of those groups in which it is defined."""
        rows = [self.scores(score) for score in self.groups.values()]
        return {name: mean([row[name] for row in rows]) for name in (rows[0] if rows else ())}

    def worst(self, count: int = 3) -> list[FrameScore]:
        """The frames of the lowest SEG, or mean Dice of classes; of equal ones the first.

        DET takes the place of SEG where there are markers alone. Frames without scores are skipped.
        """
        for name in ("seg", "det") if self.classes is None else ("mean_dice",):
            values = [(self.scores(f.score)[name], n) for n, f in enumerate(self.frames)]
            if defined := sorted((value, n) for value, n in values if value == value):
                return [self.frames[n] for _, n in defined[:count]]
        return []

    def title(self, frame: FrameScore) -> str:
        """What to call a frame: its number, with stack, plane or file where these differ."""
        t, z = frame.number
        title = f"{t}/{z}" if self.is_deep else str(t)
        if "name" in self.matched_by and frame.name:
            title = Path(frame.name).stem
        if self.n_stacks == 1:
            return title
        return frame.stack if self.n_stacks == len(self.frames) else f"{frame.stack} {title}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; None where a score is not defined."""
        content: dict[str, Any] = {
            "labels": self.labels,
            "truth": self.truth,
            "kind": "objects" if self.classes is None else "classes",
            "ignore_border": self.ignore_border,
            "matched_by": list(self.matched_by),
            "compared": len(self.frames),
            "without_truth": self.without_truth,
            "truth_without_result": self.truth_without_result,
            "set_aside": sum(f.set_aside for f in self.frames),
        }
        if self.classes is None:
            content |= {"det_against": list(self.det_against), "masks": self.masks}
        else:
            content["classes"] = [c.name for c in self.classes]
        content["pooled"] = self._row(self.pooled)
        if groups := self.groups:
            content["groups"] = [{"group": name} | self._row(s) for name, s in groups.items()]
            content["mean_of_groups"] = _defined(self.mean_of_groups())
        return content | {"frames": self.rows()}

    def rows(self) -> list[dict[str, Any]]:
        """A row per frame: what it is, counts and scores."""
        return [
            {"stack": f.stack, "t": f.number[0], "z": f.number[1], "name": f.name}
            | self._row(f.score)
            for f in self.frames
        ]

    def _row(self, score: Scored) -> dict[str, Any]:
        return score.counts() | _defined(self.scores(score))


def compare(
    labels: Path | str,
    truth: Path | str,
    ignore_border: int = 0,
    *,
    classes: bool = False,
    volumes: bool = False,
    masks: bool = False,
    group: str | None = None,
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
        Pattern on the names of the frames' files (or their stacks); frames whose first bracket
        (or match) agrees are a group.

    Raises UsageError or StackError with one sentence where that is not possible.
    """
    try:
        pattern = re.compile(group) if group else None
    except re.error as error:
        raise UsageError(f"--group {group!r} is not a regular expression: {error}") from None
    stacks = open_stacks(labels)
    truths, left_over = truths_by_stack(truth, list(stacks), labels)
    opened: dict[str, tuple[Sides, Match]] = {}
    for stack, where in truths.items():
        ours, theirs = stacks[stack], open_truth(where)
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
    frames = []
    for stack, (sides, match) in opened.items():
        for number, pairs in _units(match.pairs, volumes=volumes, planes=sides.planes):
            file = pairs[0].name
            score, apart = sides.score(pairs, ignore_border)
            key = _group(pattern, stack, file)
            frames.append(FrameScore(stack, number, file, key, score, sides, pairs, apart))
    return Comparison(
        labels=str(labels),
        truth=str(truth),
        ignore_border=ignore_border,
        frames=tuple(frames),
        matched_by=tuple(dict.fromkeys(m.by for _, m in opened.values())),
        without_truth=sum(m.without_truth for _, m in opened.values())
        + sum(len(stacks[name].numbers) for name in stacks.keys() - truths.keys()),
        truth_without_result=sum(m.truth_without_result for _, m in opened.values()) + left_over,
        det_against=tuple(dict.fromkeys(sides.truth.det_against for sides, _ in opened.values())),
        classes=_class_names(first, _pooled(f.score for f in frames)),
        group=group,
        masks=masks,
    )


def _units(
    pairs: Iterable[Pair], *, volumes: bool, planes: bool
) -> Iterator[tuple[Number, tuple[Pair, ...]]]:
    """What is scored as one: each frame or, of `volumes`, the planes of each time point.

    With `planes`, all frames are planes of one volume.
    """

    def number(pair: Pair) -> Number:
        return (0 if planes else pair.number[0], 0) if volumes else pair.number

    return ((n, tuple(together)) for n, together in groupby(pairs, number))


def _group(pattern: re.Pattern[str] | None, stack: str, file: str | None) -> str:
    if pattern is None:
        return stack
    match = pattern.search(file or stack)
    if match is None:
        raise UsageError(f"--group {pattern.pattern!r} matches nothing in {file or stack}")
    return (match.group(1) if pattern.groups else match.group(0)) or ""


def _pooled(scores: Iterable[Scored]) -> Scored:
    return reduce(add, scores)


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


def _defined(scores: dict[str, float]) -> dict[str, float | None]:
    return {name: None if value != value else value for name, value in scores.items()}
