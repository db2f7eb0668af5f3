"""Chooses a model's default thresholds and minimum area on the validation part."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.labels.postprocessing import Postprocessing
from engine.results.score.metrics import Score, score_overlaps
from engine.results.score.overlaps import count_overlaps
from engine.store.files import whole_file
from train.objects import label_objects
from train.scores import Scores

THRESHOLDS = tuple(round(0.3 + 0.05 * i, 2) for i in range(9))  # 0.3 .. 0.7
CORE_THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
MIN_AREAS = (0, 10, 20, 30, 50, 80)  # px
ROUNDS = 2  # of choosing one threshold with the other as it is


@dataclass(frozen=True)
class Frame:
    """What is scored of a frame."""

    probability: NDArray[np.float32]  # (K, Y, X)
    labels: NDArray[Any]  # (Y, X), the truth
    counted: NDArray[np.bool_]  # (Y, X): where the truth is known

    @property
    def truth(self) -> NDArray[Any]:
        """The truth where it counts (Y, X), 0 elsewhere."""
        return np.where(self.counted, self.labels, 0)


@dataclass(frozen=True)
class Choice:
    """Thresholds and a minimum area, with the validation scores they reach."""

    threshold: float
    core_threshold: float | None  # None: the network has no output of cores
    min_area: int
    scores: Scores

    @property
    def chosen(self) -> dict[str, float]:
        """The combination as plain values, by the names of `Postprocessing`."""
        values: dict[str, float] = {"threshold": self.threshold, "min_area": self.min_area}
        if self.core_threshold is not None:
            values["core_threshold"] = self.core_threshold
        return values

    def as_dict(self) -> dict[str, float]:
        """The combination and the scores that are defined, rounded, as plain values."""
        return self.chosen | {name: round(v, 5) for name, v in self.scores.defined().items()}


def choose(
    frames: Sequence[Frame], base: Postprocessing, slack: float = 0.0
) -> tuple[Choice, list[Choice]]:
    """The best combination by the mean of SEG and F1, and all that were tried, in order.

    `base` says how objects are told apart. The thresholds of foreground and cores are chosen in
    turns, each with every minimum area. Among equals the thresholds closest to those of `base` and
    the smaller area win. At the end the core threshold is raised as far as the mean of SEG and F1
    drops by no more than `slack`.
    """
    by_cores = base.instances == "cores"
    tried: dict[tuple[float, float | None], list[Choice]] = {}

    def best_of(pairs: Iterable[tuple[float, float | None]]) -> Choice:
        """The best of all, once these are tried as well."""
        for pair in pairs:
            if pair not in tried:
                tried[pair] = list(_scored(frames, base, *pair))
        return max(itertools.chain(*tried.values()), key=lambda choice: _rank(choice, base))

    best = best_of([(base.threshold, base.core_threshold if by_cores else None)])
    for _ in range(ROUNDS if by_cores else 1):
        if by_cores:
            best = best_of((best.threshold, core) for core in CORE_THRESHOLDS)
        best = best_of((threshold, best.core_threshold) for threshold in THRESHOLDS)
    if by_cores and slack:
        best = best_of((best.threshold, core) for core in CORE_THRESHOLDS)
        every = itertools.chain(*tried.values())
        best = max((one for one in every if _is_cautious(one, best, slack)), key=_core)
    curve = itertools.chain(*tried.values())
    return best, sorted(curve, key=lambda c: (c.threshold, c.core_threshold or 0, c.min_area))


def _core(choice: Choice) -> float:
    return choice.core_threshold or 0.0


def _is_cautious(choice: Choice, best: Choice, slack: float) -> bool:
    """Whether it is the best but for a core threshold that is as high or higher."""
    same = (choice.threshold, choice.min_area) == (best.threshold, best.min_area)
    enough = choice.scores.rank >= best.scores.rank - slack
    return same and enough and _core(choice) >= _core(best)


def _rank(choice: Choice, base: Postprocessing) -> tuple[float, float, int]:
    away = abs(choice.threshold - base.threshold)
    if choice.core_threshold is not None:
        away += abs(choice.core_threshold - base.core_threshold)
    return round(choice.scores.rank, 4), -round(away, 4), -choice.min_area


def _scored(
    frames: Sequence[Frame], base: Postprocessing, threshold: float, core: float | None
) -> Iterator[Choice]:
    """The scores of one pair of thresholds with each minimum area."""
    rules = replace(base, threshold=threshold, min_area=0)
    if core is not None:
        rules = replace(rules, core_threshold=core)
    scored = [_frame_scores(frame, rules) for frame in frames]
    for number, min_area in enumerate(MIN_AREAS):
        pooled = Scores.pooled(one[number] for one in scored)
        yield Choice(threshold, core, min_area, pooled)


def _frame_scores(frame: Frame, rules: Postprocessing) -> list[Score]:
    """Scores of a frame with each of MIN_AREAS: it is labelled once."""
    labels = label_objects(frame.probability, rules)
    areas = np.bincount(labels.reshape(-1))[1:]
    truth = frame.truth
    found = []
    for min_area in MIN_AREAS:
        kept = np.r_[False, areas >= min_area]
        result = np.where(kept[labels], labels, 0)
        found.append(score_overlaps(count_overlaps(where_known(result, frame), truth)))
    return found


def score_frames(frames: Sequence[Frame], rules: Postprocessing) -> Scores:
    """Scores of frames whose objects are told apart by `rules`."""
    return Scores.pooled(score_frame(frame, rules) for frame in frames)


def score_frame(frame: Frame, rules: Postprocessing) -> Score:
    """Score of one frame whose objects are told apart by `rules`."""
    labels = where_known(label_objects(frame.probability, rules), frame)
    return score_overlaps(count_overlaps(labels, frame.truth))


def where_known(labels: NDArray[np.uint32], frame: Frame) -> NDArray[np.uint32]:
    """`labels` (Y, X) where the truth is known, 0 elsewhere.

    An object that lies mostly where it is not, and meets no object of the truth, is left out: it is
    what shows of a neighbour that nobody has drawn, and no false positive.
    """
    known = np.where(frame.counted, labels, 0)
    areas = np.bincount(labels.reshape(-1))
    shown = np.bincount(known.reshape(-1), minlength=len(areas))
    meets = np.zeros(len(areas), dtype=bool)
    meets[known[frame.labels > 0]] = True
    return np.where((meets | (2 * shown > areas))[known], known, 0)


def write_curve(path: Path, curve: Sequence[Choice]) -> None:
    """The scores of every combination as CSV, empty where one is not defined."""
    names = ["threshold", "core_threshold", "min_area", *asdict(curve[0].scores)]
    with whole_file(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(choice.as_dict() for choice in curve)
