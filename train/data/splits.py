"""Splits frames into training, validation and test: by group or by time, never by patch."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from engine.errors import UsageError
from train.data.frames import FrameSource


@dataclass(frozen=True)
class Split:
    """Which frames train, which validate, and which are kept for the test."""

    train: tuple[FrameSource, ...]
    val: tuple[FrameSource, ...]
    test: tuple[FrameSource, ...]
    rule: str  # how it was made, in words

    @property
    def flatters(self) -> bool:
        """Whether validation frames are of groups that also train, and so resemble these."""
        return not {f.group for f in self.val}.isdisjoint(f.group for f in self.train)

    def as_json(self) -> dict[str, Any]:
        """Rule, groups and frame names of the three parts."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {"rule": self.rule} | {
            name: {"groups": sorted({f.group for f in part}), "frames": [f.name for f in part]}
            for name, part in parts.items()
        }


def split_frames(
    sources: list[FrameSource],
    val_fraction: float,
    test_fraction: float,
    test_every: int | None = None,
) -> Split:
    """Split by group; frames of one group alone are split by time.

    Groups are taken in the order of the SHA-256 of their names, which depends on nothing else:
    neither on the order in which files are listed nor on a seed. The test part comes first, then
    validation; each that is wanted gets at least one group. With `test_every` N, the first of
    every N frames of each group is test instead, and the others are split as said. Groups of a
    single frame, such as files of a flat folder, are taken together for that.
    """
    if test_every is not None:
        return _with_test_frames(sources, val_fraction, test_every)
    groups = sorted({s.group for s in sources}, key=_hash)
    if len(groups) == 1:
        return _split_by_time(sources, val_fraction, test_fraction)
    n_test, n_val = _sizes(len(groups), val_fraction, test_fraction)
    test, val = set(groups[:n_test]), set(groups[n_test : n_test + n_val])
    return Split(
        train=tuple(s for s in sources if s.group not in test | val),
        val=tuple(s for s in sources if s.group in val),
        test=tuple(s for s in sources if s.group in test),
        rule=(
            f"by group: of {len(groups)} groups in the order of the SHA-256 of their names, "
            f"the first {n_test} are test, the next {n_val} validation"
        ),
    )


def _with_test_frames(sources: list[FrameSource], val_fraction: float, every: int) -> Split:
    sizes = Counter(s.group for s in sources)

    def folder(source: FrameSource) -> str:
        return source.group if sizes[source.group] > 1 else ""

    ordered = sorted(sources, key=lambda s: (folder(s), s.time, s.name))
    test = [s for _, one in groupby(ordered, key=folder) for s in list(one)[::every]]
    if len(test) == len(sources):
        raise UsageError(
            f"--test-every {every} holds back all {len(sources)} frames, the first of each group, "
            "and leaves none to train on; give more data, or --test-fraction instead"
        )
    names = {s.name for s in test}
    others = split_frames([s for s in sources if s.name not in names], val_fraction, 0.0)
    rule = (
        f"one of every {every} files is test; of the others, {others.rule}"
        if max(sizes.values()) == 1
        else f"one of every {every} frames of each group is test: an easy test, since it resembles "
        f"the training frames beside it; of the others, {others.rule}"
    )
    return replace(others, test=tuple(test), rule=rule)


def _split_by_time(sources: list[FrameSource], val_fraction: float, test_fraction: float) -> Split:
    ordered = sorted(sources, key=lambda s: (s.time, s.name))
    n_test, n_val = _sizes(len(ordered), val_fraction, test_fraction)
    earlier = ordered[: len(ordered) - n_test]
    # In the middle of as many stretches: objects become more, or dim, in the course of a sequence.
    chosen = {(2 * i + 1) * len(earlier) // (2 * n_val) for i in range(n_val)}
    return Split(
        train=tuple(s for i, s in enumerate(earlier) if i not in chosen),
        val=tuple(s for i, s in enumerate(earlier) if i in chosen),
        test=tuple(ordered[len(earlier) :]),
        rule=(
            f"by time, since there is only one group ({ordered[0].group}): of {len(ordered)} "
            f"frames the last {n_test} are test, and {n_val} of the others, evenly spread, "
            "validation; these resemble the training frames beside them, so their scores flatter"
        ),
    )


def _sizes(n: int, val_fraction: float, test_fraction: float) -> tuple[int, int]:
    """Numbers of test and validation groups out of n, at least one training group left."""
    n_test = max(round(n * test_fraction), 1) if test_fraction else 0
    n_val = max(round(n * val_fraction), 1)
    if n_test + n_val >= n:
        raise UsageError(
            f"{n} groups or frames cannot be split into training, validation"
            f"{' and test' if n_test else ''}; give more data or smaller fractions"
        )
    return n_test, n_val


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
