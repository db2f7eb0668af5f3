"""Which frames are pooled: those of a stack, or those whose names agree in a pattern."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.truth.groups import find, first_bracket, not_empty, parse_pattern

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
        match = find(self.pattern, file or stack)
        named = {name: found or "" for name, found in match.groupdict().items()}
        if not named:
            return not_empty(first_bracket(match), match)
        group = not_empty(" ".join(filter(None, named.values())), match)
        self.parts[group] = named
        return group


def grouping(pattern: str | None, names: Iterable[str], *, classes: bool) -> Grouping:
    """The grouping by a pattern that the user gave.

    Without one, class maps (`classes`) whose `names` all are those of the ACDC challenge are pooled
    by patient and phase; all else by stack. Raises UsageError where the pattern is none.
    """
    given = parse_pattern(pattern)
    if given is None and classes:
        acdc = re.compile(ACDC)
        if all(acdc.search(name) for name in names):
            given = acdc
    return Grouping(given)
