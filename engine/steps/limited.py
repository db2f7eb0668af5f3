"""An open stack of which every use has to end within the limit, see `engine.steps.hangs`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Self

from engine.stacks.base import Stack
from engine.steps.hangs import Hung, Result, Timeout, within


class LimitedStack:
    """Closes its stack at the end, unless a use of it hangs: that holds what closing waits for."""

    def __init__(self, stack: Stack, timeout: Timeout) -> None:
        self._stack, self._timeout = stack, timeout
        self._hangs = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._hangs:
            self._stack.close()

    def within(self, use: Callable[[Stack], Result]) -> Result:
        """What `use` makes of the stack; Hung where it does not end. From any thread."""
        try:
            return within(self._timeout, partial(use, self._stack))
        except Hung:
            self._hangs = True
            raise
