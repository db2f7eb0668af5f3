"""What `verify` finds: a line for each object that is not as it was recorded."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

KEPT = 1000  # of a kind; a result that is lost as a whole must not fill the memory
SHOWN = 20  # of a kind, as lines of text


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it was recorded."""

    kind: str  # record, shard, labels, objects, table, report, metadata, stray, unfinished
    path: str  # of the file, below the job's folder
    what: str  # is wrong with it
    where: str = ""  # stack, and block, stitch group or frame
    stack: str = ""
    index: int | None = None  # of the block or stitch group

    @property
    def text(self) -> str:
        """The problem as a line."""
        return ": ".join(part for part in (self.path, self.where, self.what) if part)

    def below(self, folder: str) -> Problem:
        """The same, with its path relative to a folder in which the job's is called `folder`."""
        if not folder or not self.path:
            return self
        return replace(self, path=posixpath.normpath(posixpath.join(folder, self.path)))


class Problems:
    """Problems as they come; counts all, keeps the first KEPT of each kind."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Problem]] = {}
        self._counts: Counter[str] = Counter()

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add problems."""
        for one in problems:
            self._counts[one.kind] += 1
            if self._counts[one.kind] <= KEPT:
                self._kept.setdefault(one.kind, []).append(one)

    def __len__(self) -> int:
        return self._counts.total()

    def of_kind(self, kind: str) -> int:
        """How many there are of a kind."""
        return self._counts[kind]

    def lines(self, below: str = "") -> Iterator[str]:
        """One line for each problem, capped for each kind; the job's folder lies at `below`."""
        return (one.text for one in self._first(SHOWN, below))

    def to_list(self, below: str = "") -> list[dict[str, Any]]:
        """Problems as plain data; where there are too many, the last of a kind says how many."""
        return [{**asdict(one), "text": one.text} for one in self._first(KEPT, below)]

    def _first(self, most: int, below: str) -> Iterator[Problem]:
        for kind, kept in self._kept.items():
            yield from (one.below(below) for one in kept[:most])
            if (more := self._counts[kind] - most) > 0:
                yield Problem(kind, "", f"and {more:,} more of the kind {kind!r}")
