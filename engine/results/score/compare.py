"""Compare a result with a truth: match stacks by name and frames by number, score, pool."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import groupby
from operator import add
from pathlib import Path
from typing import Any

from engine.errors import StackError, UsageError
from engine.results.planes import Number
from engine.results.result import LabelClass, rgb_of
from engine.results.score.classes import ClassScore, mean, score_classes
from engine.results.score.match import Match, Pair, match_frames
from engine.results.score.metrics import Detection, Score, detect, score
from engine.results.score.sides import Sides, known_classes
from engine.results.score.sources import open_stacks, open_truth, truths_by_stack
from engine.truth.ids import InPieces

Scored = Score | ClassScore


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

        DET takes the place of SEG where there are markers alone. Frames without a score are none.
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
        Pixels left out along the sides of every frame.
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
    opened: list[Sides] = []
    matches: list[Match] = []
    for name, where in truths.items():
        ours, theirs = stacks[name], open_truth(where)
        known = known_classes(ours, theirs, classes)
        if known is not None:
            theirs = replace(theirs, markers=None)  # a class map has nothing to detect
            if masks:
                raise UsageError(f"{where}: is of classes, and --masks is about objects; omit it")
        opened.append(Sides(ours, theirs, known, masks))
        matches.append(match_frames(ours, theirs))
    for other in opened:
        if other.kind != opened[0].kind:
            raise UsageError(
                f"{opened[0].ours.path} is scored by {opened[0].kind}, but {other.ours.path} by "
                f"{other.kind}; they have no score in common, so evaluate one at a time"
            )
    rules = _Rules(ignore_border, volumes, pattern)
    frames = tuple(
        frame
        for name, sides, match in zip(truths, opened, matches, strict=True)
        for frame in rules.frames(name, sides, match.pairs)
    )
    return Comparison(
        labels=str(labels),
        truth=str(truth),
        ignore_border=ignore_border,
        frames=frames,
        matched_by=tuple(dict.fromkeys(m.by for m in matches)),
        without_truth=sum(m.without_truth for m in matches)
        + sum(len(stacks[name].numbers) for name in stacks.keys() - truths.keys()),
        truth_without_result=sum(m.truth_without_result for m in matches) + left_over,
        det_against=tuple(dict.fromkeys(sides.truth.det_against for sides in opened)),
        classes=_class_names(opened[0], _pooled(f.score for f in frames)),
        group=group,
        masks=masks,
    )


@dataclass(frozen=True)
class _Rules:
    """How frames are scored and grouped."""

    ignore_border: int  # px
    volumes: bool
    group: re.Pattern[str] | None

    def frames(self, stack: str, sides: Sides, pairs: Iterable[Pair]) -> Iterator[FrameScore]:
        """The score of every frame, or of every time point."""

        def unit(pair: Pair) -> Number:
            return (0 if sides.planes else pair.number[0], 0) if self.volumes else pair.number

        for number, together in groupby(pairs, unit):
            planes = tuple(together)  # one, or those of a time point
            name = planes[0].name
            group = self._group(name or stack) if self.group else stack
            score, apart = self._score(sides, planes)
            yield FrameScore(stack, number, name, group, score, sides, planes, apart)

    def _score(self, sides: Sides, pairs: tuple[Pair, ...]) -> tuple[Scored, InPieces | None]:
        """The score, and what shows that the truth may hold no objects."""
        border = self.ignore_border
        with_labels = [p for p in pairs if p.labels is not None]
        with_markers = [p for p in pairs if p.markers is not None]
        if sides.classes is not None:
            ours, theirs = sides.classes_of(with_labels)
            with _named(sides, with_labels[0]):
                return score_classes(ours, theirs, sides.classes, border), None
        scored, apart = Score(), None
        if with_labels:
            ours, theirs = sides.result(with_labels), sides.labels(with_labels)
            with _named(sides, with_labels[0]):
                scored = score(ours, theirs, border)
            apart = sides.in_pieces(with_labels[0], ours, theirs)
        if sides.truth.markers is not None:
            scored = replace(scored, detection=Detection())
        if with_markers:
            ours, theirs = sides.result(with_markers), sides.markers(with_markers)
            with _named(sides, with_markers[0]):
                scored = replace(scored, detection=detect(ours, theirs, border))
        return scored, apart

    def _group(self, name: str) -> str:
        assert self.group is not None
        match = self.group.search(name)
        if match is None:
            raise UsageError(f"--group {self.group.pattern!r} matches nothing in {name}")
        return (match.group(1) if self.group.groups else match.group(0)) or ""


@contextmanager
def _named(sides: Sides, pair: Pair) -> Iterator[None]:
    """Names the frame that cannot be scored."""
    try:
        yield
    except StackError as error:
        name = f" ({pair.name})" if pair.name else ""
        raise StackError(f"{sides.ours.path}: frame {pair.number[0]}{name}: {error}") from None


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
