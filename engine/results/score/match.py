"""Which frame of a result is compared with which frame of a truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UsageError, plural
from engine.results.planes import Number
from engine.results.score.files import numbered
from engine.results.score.frames import LabelFrames
from engine.results.score.sources import Truth
from engine.stacks.guard import some

Key = Number | str  # what frames are matched by
Keys = dict[Key, Number]


@dataclass(frozen=True)
class Pair:
    """A frame of the result and its truth."""

    number: Number  # that it is shown by
    name: str | None  # of the truth's file, or of the image's
    ours: Number
    labels: Number | None  # of the truth's objects; None: it has markers alone
    markers: Number | None  # None: it has objects alone


@dataclass(frozen=True)
class Match:
    """The frames to compare."""

    pairs: tuple[Pair, ...]
    by: str  # number, name or order
    without_truth: int  # frames of the result
    truth_without_result: int  # frames of the truth


def match_frames(ours: LabelFrames, truth: Truth) -> Match:
    """Match the frames of a result with those of its truth.

    Two single images are a pair, whatever their names. Otherwise frames agree by number: of their
    files where both are files (of a result, those of its images), else of their arrays. Files whose
    numbers are missing or repeated agree by name, or else by their order.

    A result of frames 60 to 91 is matched with the truth of those frames: truth before its first
    and after its last is counted. A truth in between that has no result is a UsageError that names
    the frames, since omitting it would flatter the score. What agrees by name has no order: there
    every truth without a result is counted.
    """
    if truth.labels is None:
        assert truth.markers is not None
        by, have, markers = _keys(ours, truth.markers)
        labels: Keys = {}
    else:
        by, have, labels = _keys(ours, truth.labels)
        markers = {n: n for n in truth.markers.numbers} if truth.markers else {}
    there = labels.keys() | markers.keys()
    common = [key for key in have if key in there]
    if not common:
        raise UsageError(
            f"{ours.path} and {truth.path} have no frame in common: "
            f"the result has {_range(have)}, the truth {_range(there)}"
        )
    ts = [key[0] for key in have if isinstance(key, tuple)]  # none where frames agree by name
    between = range(min(ts, default=0), max(ts, default=-1) + 1)
    absent = [key for key in there if key not in have]
    lacking = sorted(key for key in absent if isinstance(key, tuple) and key[0] in between)
    if lacking:
        deep = any(z for _, z in lacking)
        frames = [f"t {t} z {z}" if deep else str(t) for t, z in lacking]
        raise UsageError(
            f"{ours.path}: has no result for {plural(len(lacking), 'frame')} of the truth "
            f"({some(frames, limit=10)}); score a complete result or remove them from {truth.path}"
        )
    names = truth.labels.names if truth.labels else {}
    pairs = [
        Pair(
            number=key if isinstance(key, tuple) else have[key],
            name=names.get(labels.get(key, (-1, -1)), ours.names.get(have[key])),
            ours=have[key],
            labels=labels.get(key),
            markers=markers.get(key),
        )
        for key in common
    ]
    pairs.sort(key=lambda pair: pair.number)
    return Match(tuple(pairs), by, len(have) - len(common), len(absent))


def _keys(ours: LabelFrames, theirs: LabelFrames) -> tuple[str, Keys, Keys]:
    """What frames are matched by, and each side's frames by that."""
    if len(ours.numbers) == len(theirs.numbers) == 1:
        number = theirs.numbers[0]
        return "number", {number: ours.numbers[0]}, {number: number}
    our_files, their_files = _by_file_number(ours), _by_file_number(theirs)
    if our_files and their_files:
        return "number", our_files, their_files
    our_names, their_names = _by_name(ours), _by_name(theirs)
    if our_names.keys() & their_names.keys():
        return "name", our_names, their_names
    if not ours.by_order and not theirs.by_order:
        return "number", {n: n for n in ours.numbers}, {n: n for n in theirs.numbers}
    if len(ours.numbers) != len(theirs.numbers):
        raise UsageError(
            f"{ours.path} and {theirs.path} cannot be matched: they agree neither by number "
            f"nor by name, and {len(ours.numbers)} are not {len(theirs.numbers)}; number files, "
            "or give those of a frame the same name"
        )
    in_order: list[Keys] = [{(t, 0): n for t, n in enumerate(s.numbers)} for s in (ours, theirs)]
    return "order", in_order[0], in_order[1]


def _by_file_number(frames: LabelFrames) -> Keys:
    """Frames by the numbers in their files' names; empty where these are not all different."""
    if frames.by_order or len(frames.names) != len(frames.numbers):
        return {}
    if frames.origin is None:  # files, numbered as they were opened
        return {n: n for n in frames.numbers}
    by_name = {Path(name): n for n, name in frames.names.items()}
    files = numbered(list(by_name)) or {}
    return {number: by_name[file] for number, file in files.items()}


def _by_name(frames: LabelFrames) -> Keys:
    """Frames by their files' names without suffix; empty where these are not all different."""
    stems: Keys = {Path(name).stem: n for n, name in frames.names.items()}
    return stems if len(stems) == len(frames.numbers) else {}


def _range(keys: Iterable[Key]) -> str:
    numbers = sorted(key[0] for key in keys if isinstance(key, tuple))
    if not numbers:
        return "other names"
    first, last = numbers[0], numbers[-1]
    return f"frame {first}" if first == last else f"frames {first} to {last}"
