"""Which channels of a stack feed a model, are measured and are read: by number or by name.

1              channel number 1, whatever the channels are called
GFP            the channel of that name
"1"            the channel whose name is "1"
"DAPI, 405",2  the one of that name, which holds a comma, and number 2
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from engine.errors import StackError
from engine.model.spec import ModelSpec
from engine.stacks.base import StackInfo

ALL, NONE = "all", "none"  # of `--measure`; a channel of that name is given in quotes
# One channel and the comma after it: in quotes, which are doubled inside, as in CSV; or plain.
_ITEM = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^",]*[^",\s]))\s*(,|$)')


def parse_channels(text: str) -> tuple[int | str, ...]:
    """Numbers and names in a list such as `0,2`, `GFP` or `"DAPI, 405",1`; ValueError for others.

    What is in quotes is a name, even if it looks like a number.
    """
    found: list[int | str] = []
    at, comma = 0, ","
    while comma:
        item = _ITEM.match(text, at)
        if item is None:
            raise ValueError(
                "is not understood; give numbers or names such as 1, GFP or 0,2, and a name that "
                "is a number or has a comma in double quotes of its own"
            )
        quoted, plain, comma = item.groups()
        is_number = plain is not None and plain.isascii() and plain.isdecimal()
        name = plain if quoted is None else quoted.replace('""', '"')
        found.append(int(plain) if is_number else name)
        at = item.end()
    return tuple(found)


def parse_names(text: str) -> tuple[str, ...]:
    """Names in a list such as `aorta`, `left atrium,aorta` or `"a, b",c`; ValueError for others."""
    try:
        return tuple(str(one) for one in parse_channels(text))
    except ValueError:
        raise ValueError(
            "is not understood; give names such as aorta,ventricle, and a name that has a comma in "
            "double quotes of its own"
        ) from None


def choose_channels(info: StackInfo, given: str | None, spec: ModelSpec) -> tuple[int, ...]:
    """The stack's channels that feed the model; StackError where that is unclear."""
    available, wanted = info.size("C"), len(spec.channels)
    if given is None:
        if available == wanted:
            return tuple(range(wanted))
        raise StackError(
            f"{info.path}: has {_listed(info)}, and the model takes {wanted} "
            f"({', '.join(spec.channels)}); choose with --channel"
        )
    chosen = tuple(channel_number(info, one) for one in parse_channels(given))
    if len(chosen) != wanted:
        raise StackError(
            f"{info.path}: --channel {given} names {len(chosen)}, and the model takes {wanted} "
            f"({', '.join(spec.channels)})"
        )
    return chosen


def measured_channels(info: StackInfo, given: str) -> tuple[int, ...]:
    """The stack's channels that are measured, ascending; StackError where one is unclear."""
    if given in (ALL, NONE):
        return tuple(range(info.size("C"))) if given == ALL else ()
    return tuple(sorted({channel_number(info, one) for one in parse_channels(given)}))


def with_channels(info: StackInfo, channels: Sequence[int]) -> StackInfo:
    """The stack as if it had these channels alone: what reading them takes of memory."""
    lengths = zip(info.axes, info.shape, strict=True)
    return replace(info, shape=tuple(len(channels) if a == "C" else n for a, n in lengths))


def channel_number(info: StackInfo, channel: int | str) -> int:
    """The number of a channel; StackError where the stack has none of that name, or several."""
    if isinstance(channel, int):
        if channel < info.size("C"):
            return channel
        named = _named(info, str(channel))
        hint = f"; for the one of that name give '\"{channel}\"', quotes included" if named else ""
        raise StackError(f"{info.path}: has no channel '{channel}'; it has {_listed(info)}{hint}")
    found = _named(info, channel)
    if not found:
        raise StackError(f"{info.path}: has no channel {channel!r}; it has {_listed(info)}")
    if len(found) > 1:
        numbers = f"{', '.join(map(str, found[:-1]))} and {found[-1]}"
        raise StackError(
            f"{info.path}: its channels {numbers} are all named {channel!r}; choose by number"
        )
    return found[0]


def _named(info: StackInfo, name: str) -> list[int]:
    """Numbers of the channels of that name, spaces around names ignored where none has it."""
    names = info.channel_names
    exact = [number for number, one in enumerate(names) if one == name]
    return exact or [number for number, one in enumerate(names) if one.strip() == name.strip()]


def _listed(info: StackInfo) -> str:
    count = info.size("C")
    if count == 1 and not info.channel_names:
        return "1 channel, number 0"
    names = ", ".join(map(_as_given, info.channel_names)) or "its metadata name none"
    return f"{count} channels, numbers 0 to {count - 1} ({names})"


def _as_given(name: str) -> str:
    """A name as options take it: in quotes where it would mean something else."""
    try:
        plain = parse_channels(name) == (name,) and name not in (ALL, NONE)
    except ValueError:
        plain = False
    return name if plain else '"{}"'.format(name.replace('"', '""'))
