"""Which frames are pooled: those of a stack, or those whose names agree in a pattern."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.errors import UsageError

ACDC = r"^(?P<patient>patient\d+)_(?P<phase>frame\d+)"
"""What slices of the ACDC challenge are called: patient001_frame01_z00, and a volume of them."""


@dataclass
class Grouping:
    """A pattern, and the groups that it made so far."""

    pattern: re.Pattern[str] | None  # None: the frames of a stack are a group
    parts: dict[str, dict[str, str]] = field(default_factory=dict)
    """By group, what the named brackets of the pattern matched, such as patient and phase."""

    def of(self, stack: str, file: str | None) -> str:
        """The group of a frame, by the name of its file or stack.

        That is what all named brackets matched, or else the first bracket, or else all. Raises
        UsageError where the pattern matches nothing.
        """
        if self.pattern is None:
            return stack
        match = self.pattern.search(file or stack)
        if match is None:
            raise UsageError(f"--group {self.pattern.pattern!r} matches nothing in {file or stack}")
        if self.pattern.groupindex:
            named = {name: found or "" for name, found in match.groupdict().items()}
            group = " ".join(filter(None, named.values()))
            self.parts[group] = named
        else:
            group = (match.group(1) if self.pattern.groups else match.group(0)) or ""
        if not group:
            raise UsageError(
                f"--group {self.pattern.pattern!r} matches an empty text in {file or stack}, so it "
                "gives no group; make it match a part of every name"
            )
        return group


def grouping(pattern: str | None, names: Iterable[str], *, classes: bool) -> Grouping:
    """The grouping by a pattern that the user gave.

    Without one, class maps (`classes`) whose `names` all are those of the ACDC challenge are pooled
    by patient and phase; all else by stack. Raises UsageError where the pattern is none.
    """
    try:
        given = re.compile(pattern) if pattern else None
    except re.error as error:
        raise UsageError(f"--group {pattern!r} is not a regular expression: {error}") from None
    if given is None and classes:
        acdc = re.compile(ACDC)
        if all(acdc.search(name) for name in names):
            given = acdc
    return Grouping(given)
