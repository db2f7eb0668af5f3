"""Compare a result with a truth: match their frames by number, score each, pool them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import StackError, UsageError
from engine.score.metrics import Score, score
from engine.score.sources import LabelFrames, Number, open_labels


@dataclass(frozen=True)
class Comparison:
    """The scores of every frame that has both a result and a truth."""

    labels: str  # paths, as opened
    truth: str
    ignore_border: int  # px
    frames: tuple[tuple[Number, Score], ...]  # by (t, z)
    untrue: int  # frames of the result without a truth
    beyond: int  # frames of the truth before or after the result's

    @property
    def pooled(self) -> Score:
        """All frames as one."""
        return sum((s for _, s in self.frames), Score())

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "labels": self.labels,
            "truth": self.truth,
            "ignore_border": self.ignore_border,
            "compared": len(self.frames),
            "without_truth": self.untrue,
            "truth_beyond_result": self.beyond,
            "pooled": self.pooled.to_dict(),
            "frames": [{"t": t, "z": z} | s.to_dict() for (t, z), s in self.frames],
        }


def compare(labels: Path | str, truth: Path | str, ignore_border: int = 0) -> Comparison:
    """Score labels against a truth, frame by frame.

    Parameters
    ----------
    labels, truth
        Anything `open_labels` opens.
    ignore_border
        Pixels left out along the sides of every frame.

    A result of frames 60 to 91 is scored on the truth of those frames: truth before its first
    and after its last frame is counted in `beyond`. A truth in between that has no result is a
    UsageError that names the frames, since leaving it out would flatter the score.
    """
    ours, theirs = open_labels(labels), open_labels(truth)
    pairs = list(_pairs(ours, theirs))
    frames = tuple(
        (theirs_at, _score(ours, ours_at, theirs, theirs_at, ignore_border))
        for ours_at, theirs_at in pairs
    )
    return Comparison(
        labels=ours.path,
        truth=theirs.path,
        ignore_border=ignore_border,
        frames=frames,
        untrue=len(ours.numbers) - len(pairs),
        beyond=len(theirs.numbers) - len(pairs),
    )


def _pairs(ours: LabelFrames, theirs: LabelFrames) -> Iterator[tuple[Number, Number]]:
    """Numbers of the frames to compare, of the result and of the truth."""
    if len(ours.numbers) == len(theirs.numbers) == 1:
        return iter([(ours.numbers[0], theirs.numbers[0])])  # two single images, however named
    have = set(ours.numbers)
    first, last = min(have)[0], max(have)[0]
    lacking = [n for n in theirs.numbers if n not in have and first <= n[0] <= last]
    if lacking:
        raise UsageError(
            f"{ours.path}: has no result for {len(lacking)} frames of the truth "
            f"({_listed(lacking)}); score a complete result or leave them out of {theirs.path}"
        )
    common = [n for n in theirs.numbers if n in have]
    if not common:
        raise UsageError(
            f"{ours.path} and {theirs.path} have no frame in common: "
            f"the result has {_range(ours)}, the truth {_range(theirs)}"
        )
    return ((n, n) for n in common)


def _score(
    ours: LabelFrames, ours_at: Number, theirs: LabelFrames, theirs_at: Number, border: int
) -> Score:
    result, truth = ours.read(ours_at), theirs.read(theirs_at)
    try:
        return score(result, truth, border)
    except StackError as error:
        raise StackError(f"frame {theirs_at[0]} of {ours.path}: {error}") from None


def _listed(numbers: list[Number], most: int = 10) -> str:
    deep = any(z for _, z in numbers)
    names = [f"t {t} z {z}" if deep else str(t) for t, z in numbers[:most]]
    return ", ".join(names) + (", ..." if len(numbers) > most else "")


def _range(frames: LabelFrames) -> str:
    first, last = frames.numbers[0][0], frames.numbers[-1][0]
    return f"frame {first}" if first == last else f"frames {first} to {last}"
