"""The stack that a result was made from, read again: it must be what the job read."""

from __future__ import annotations

from engine.errors import StackError, UsageError
from engine.results.result import ResultStack
from engine.stacks.base import Stack
from engine.stacks.open import open_stack


def open_source(stack: ResultStack) -> Stack:
    """The source of a result's stack, open, as its job recorded it.

    Raises UsageError where the result doesn't know it, StackError where it is gone or has changed.
    """
    origin = stack.origin
    if origin is None:
        raise UsageError(
            f"{stack.store}: was moved away from its job, which knows its image; give the job's "
            "folder"
        )
    try:
        source = open_stack(origin.path, stack.axes, origin.series or None)
    except StackError as error:
        raise StackError(
            f"{stack.name}: the image that it was segmented from cannot be read again ({error}); "
            f"put it back to {origin.path}"
        ) from error
    if source.info.identity != origin.content:
        source.close()
        raise StackError(
            f"{origin.path}: has changed since {stack.name} was segmented, so labels and image "
            "may not agree; put the old image back, or segment the new one"
        )
    return source
