"""What `verify` finds: a line for each thing that is not as it was recorded."""

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
        """The same, with its path as seen from where the job's folder is called `folder`."""
        if not folder or not self.path:
            return self
        return replace(self, path=posixpath.normpath(posixpath.join(folder, self.path)))


class Problems:
    """Problems as they come; counts all, keeps the first KEPT of each kind."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Problem]] = {}
        self._counts: Counter[str] = Counter()
        self._paths: set[str] = set()

    def add(self, *problems: Problem) -> None:
        """Add problems."""
        for one in problems:
            self._counts[one.kind] += 1
            if self._counts[one.kind] <= KEPT:
                self._kept.setdefault(one.kind, []).append(one)
                self._paths.add(one.path)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add problems."""
        self.add(*problems)

    def __len__(self) -> int:
        return self._counts.total()

    def names(self, path: str) -> bool:
        """Whether a problem with this file is known."""
        return path in self._paths

    def lines(self, below: str = "") -> Iterator[str]:
        """One line for each problem, capped for each kind; the job's folder lies at `below`."""
        for kind, kept in self._kept.items():
            yield from (one.below(below).text for one in kept[:SHOWN])
            if more := self._counts[kind] - len(kept[:SHOWN]):
                yield f"and {more:,} more of the kind {kind!r}"

    def to_list(self, below: str = "") -> list[dict[str, Any]]:
        """Problems as plain data; where there are too many, the last of a kind says how many."""
        found = []
        for kind, kept in self._kept.items():
            found += [{**asdict(one), "text": one.text} for one in (p.below(below) for p in kept)]
            if more := self._counts[kind] - len(kept):
                rest = Problem(kind, "", f"and {more:,} more of the kind {kind!r}")
                found.append({**asdict(rest), "text": rest.text})
        return found
