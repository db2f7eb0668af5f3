"""What a comparison of a result with a truth found: scores of frames, of groups, of all pooled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import add
from pathlib import Path
from typing import Any, NamedTuple

from engine.results.planes import Number
from engine.results.result import LabelClass
from engine.results.score.classes import ClassScore, distances_together, mean
from engine.results.score.match import Pair
from engine.results.score.scale import Scale
from engine.results.score.sides import Scored, Sides
from engine.results.score.surfaces import SurfaceDistances
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


class LeftOut(NamedTuple):
    """In how many groups a class has no score, and why."""

    groups: int  # all there are
    empty: int  # neither side has the class: no score is defined
    without_distance: int  # only one side has it: its Dice is 0, and it has no Hausdorff distance


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
    group_parts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By group, what the pattern's named brackets matched, such as patient and phase."""
    masks: bool = False  # the objects of the truth are the pieces of masks
    palette: str | None = None  # by which colours of the truth are classes
    scale: Scale = field(default_factory=Scale)
    """Units of the scores of classes; the sizes are those of the first stack."""
    volumes: Mapping[str, Mapping[int, SurfaceDistances]] | None = None
    """By group and class, distances within volumes; None: distances are within planes."""

    @cached_property
    def n_stacks(self) -> int:
        """Stacks that have a frame."""
        return len({f.stack for f in self.frames})

    @cached_property
    def is_deep(self) -> bool:
        """Whether frames are of several planes."""
        return any(f.number[1] for f in self.frames)

    @property
    def has_planes(self) -> bool:
        """Whether frames may be planes of a volume: those of a Z axis, or of groups."""
        return self.group is not None or any(f.sides.is_deep for f in self.frames)

    @cached_property
    def pooled(self) -> Scored:
        """All frames as one."""
        pooled = pool(f.score for f in self.frames)
        if self.volumes is None:
            return pooled
        return _with_distances(pooled, reduce(distances_together, self.volumes.values(), {}))

    @cached_property
    def groups(self) -> dict[str, Scored]:
        """The frames of each group pooled: of each stack, or of those whose names agree.

        Empty where there is one stack and no pattern.
        """
        if self.group is None and self.n_stacks == 1:
            return {}
        found: dict[str, list[Scored]] = {}
        for frame in self.frames:
            found.setdefault(frame.group, []).append(frame.score)
        pooled = {name: pool(scores) for name, scores in found.items()}
        if self.volumes is None:
            return pooled
        return {name: _with_distances(one, self.volumes[name]) for name, one in pooled.items()}

    def scores(self, score: Scored) -> dict[str, float]:
        """Every score by its name; NaN where one is not defined."""
        return score.scores(self.classes or ())

    def mean_of_groups(self) -> dict[str, float]:
        """The mean over groups of each score, of those groups in which it is defined."""
        rows = [self.scores(score) for score in self.groups.values()]
        return {name: mean([row[name] for row in rows]) for name in (rows[0] if rows else ())}

    def left_out(self, value: int) -> LeftOut:
        """The groups in which a class is not scored."""
        groups = [score for score in self.groups.values() if isinstance(score, ClassScore)]
        empty = [one.is_absent(value) for one in groups]
        lacking = sum(one.hd95(value) != one.hd95(value) for one in groups)
        return LeftOut(len(groups), sum(empty), lacking - sum(empty))

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
            content |= {
                "classes": [c.name for c in self.classes],
                "palette": self.palette,
                "units": {"hd95": self.scale.length, "volume": self.scale.volume},
                "hd95_within": "planes" if self.volumes is None else "volumes",
            }
        content["pooled"] = self._row(self.pooled)
        if groups := self.groups:
            content["group"] = self.group
            content["groups"] = [
                {"group": name, **self.group_parts.get(name, {})} | self._row(s)
                for name, s in groups.items()
            ]
            content["mean_of_groups"] = _defined(self.mean_of_groups())
            content["left_out"] = {
                c.name: self.left_out(c.value)._asdict() for c in self.classes or ()
            }
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


def pool(scores: Iterable[Scored]) -> Scored:
    """The scores of several frames as one."""
    return reduce(add, scores)


def _with_distances(score: Scored, distances: Mapping[int, SurfaceDistances]) -> Scored:
    return score.with_distances(distances) if isinstance(score, ClassScore) else score


def _defined(scores: dict[str, float]) -> dict[str, float | None]:
    return {name: None if value != value else value for name, value in scores.items()}
