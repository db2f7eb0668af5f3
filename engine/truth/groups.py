"""Groups of files by `--group`: those whose names agree in what a pattern matches."""

from __future__ import annotations

import re

from engine.errors import UsageError


def parse_pattern(text: str | None) -> re.Pattern[str] | None:
    """The pattern that a user gave, None for none; UsageError where it is no pattern."""
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise UsageError(f"--group {text!r} is not a regular expression: {error}") from None


def find(pattern: re.Pattern[str], name: str) -> re.Match[str]:
    """Where a pattern matches in the name of a file; UsageError where it does not."""
    match = pattern.search(name)
    if match is None:
        raise UsageError(f"--group {pattern.pattern!r} matches nothing in {name}")
    return match


def first_bracket(match: re.Match[str]) -> str:
    """What the first bracket of a pattern matched, or all of a pattern without brackets."""
    return (match.group(1) if match.re.groups else match.group(0)) or ""


def not_empty(group: str, match: re.Match[str]) -> str:
    """A group that was found by a match; UsageError where that is an empty text."""
    if not group:
        raise UsageError(
            f"--group {match.re.pattern!r} matches an empty text in {match.string}, so it gives no "
            "group; make it match a part of every name"
        )
    return group
