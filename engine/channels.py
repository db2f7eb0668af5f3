"""Which channels of a stack feed a model."""

from __future__ import annotations

from engine.errors import StackError
from engine.model import ModelSpec
from engine.stacks.base import StackInfo


def choose_channels(info: StackInfo, given: str | None, spec: ModelSpec) -> tuple[int, ...]:
    """The stack's channels that feed the model, by number or name; StackError where unclear."""
    available, wanted = info.size("C"), len(spec.channels)
    if given is None:
        if available == wanted:
            return tuple(range(wanted))
        raise StackError(
            f"{info.path}: has {_listed(info)}, and the model takes {wanted} "
            f"({', '.join(spec.channels)}); choose with --channel"
        )
    chosen = tuple(_channel(info, part.strip()) for part in given.split(","))
    if len(chosen) != wanted:
        raise StackError(
            f"{info.path}: --channel {given} names {len(chosen)}, and the model takes {wanted} "
            f"({', '.join(spec.channels)})"
        )
    return chosen


def _channel(info: StackInfo, text: str) -> int:
    if text in info.channel_names:
        return info.channel_names.index(text)
    if text.isdecimal() and int(text) < info.size("C"):
        return int(text)
    raise StackError(f"{info.path}: has no channel {text!r}; it has {_listed(info)}")


def _listed(info: StackInfo) -> str:
    count = info.size("C")
    if count == 1 and not info.channel_names:
        return "1 channel, number 0"
    names = ", ".join(info.channel_names) or "its metadata name none"
    return f"{count} channels, numbers 0 to {count - 1} ({names})"
