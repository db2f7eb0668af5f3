"""Work that may never end: a read from a stale mount, from a tape, from a pipe nobody writes to.

A thread in a system call cannot be interrupted. So such work is done in a thread of its own that
gives signs of life, and whoever waits for it *abandons* it once there was none for too long. What
is abandoned commits nothing any more: it learns so at its next sign of life, if it ever comes to
one, and a commit is allowed only to what is not abandoned.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from engine.errors import JobStopped

AT_LEAST, AT_MOST = 600.0, 3600.0  # s; between which `auto` lies
TIMES = 20  # `auto` is so many times the longest silence of this process's tasks that ended
MAX_HUNG_INPUTS = 2  # in a row in one folder, until its others are taken to hang too, untried
ADVICE = "see what it lies on, or give a longer --timeout"
TASK, PLANNING = "stackseg-task", "stackseg-planning"  # names of threads
Frame = tuple[int, int]  # t, z
Result = TypeVar("Result")
Timeout = float | Literal["auto", "none"]

_longest = 0.0  # s between two signs of life of a task in this process
_abandoned: list[threading.Thread] = []


class Hung(Exception):
    """Something gave no sign of life for as long as it may."""

    def __init__(self, place: Place, seconds: float) -> None:
        super().__init__(place, seconds)
        self.place, self.seconds = place, seconds


class Abandoned(JobStopped):
    """An abandoned task is still running, and must end: somebody else has its work."""


@dataclass(frozen=True)
class Place:
    """Where a task is."""

    frame: Frame | None = None  # that is being read and segmented, if any
    opening: bool = False  # its input


class Pulse:
    """Signs of life of one task. The thread that does it gives them, another looks at them."""

    def __init__(
        self,
        tell: Callable[[Place], None] = lambda place: None,
        tell_commit: Callable[[], None] = lambda: None,
    ) -> None:
        """`tell` hears of every sign of life, with the place it came from."""
        self.place = Place()
        self._tell, self._tell_commit = tell, tell_commit
        self.longest = 0.0  # s between two signs of life so far
        self._moved = time.monotonic()
        self._lock = threading.Lock()
        self._is_abandoned = self._commits = False

    def beat(self) -> None:
        """Give a sign of life; Abandoned where nobody waits for this task any more."""
        if self._is_abandoned:
            raise Abandoned("went on too late; what it was at is done by others")
        before, self._moved = self._moved, time.monotonic()
        self.longest = max(self.longest, self._moved - before)
        self._tell(self.place)

    def at(self, frame: Frame) -> None:
        """A frame is begun."""
        self.place = Place(frame)
        self.beat()

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Around the opening of the input."""
        before, self.place = self.place, Place(self.place.frame, opening=True)
        try:
            self.beat()
            yield
        finally:
            self.place = before
        self.beat()

    def commit(self) -> None:
        """From here on the task is not abandoned: it has all it needs, and writes. Or Abandoned."""
        with self._lock:
            self.beat()
            self._commits = True
        self._tell_commit()

    def abandon(self) -> bool:
        """Give up on the task; False where it is too late for that, because it commits."""
        with self._lock:
            self._is_abandoned = not self._commits
            return self._is_abandoned

    def left(self, limit: float) -> float:
        """Seconds until it will have been silent for `limit` seconds; 0 where it has been."""
        return max(self._moved + limit - time.monotonic(), 0.0)


def watched(
    call: Callable[[], Result], pulse: Pulse, limit: float | None, name: str = TASK
) -> Result:
    """What `call` returns or raises; Hung where `pulse` is silent for more than `limit` seconds.

    Its thread, of that name, is left behind then. Without a limit it is called right here.
    """
    if limit is None:
        return call()
    ended = threading.Event()
    found: list[Any] = []  # what it returned, or nothing
    raised: list[BaseException] = []

    def body() -> None:
        try:
            found.append(call())
        except BaseException as error:  # the waiting thread's to judge
            raised.append(error)
        ended.set()

    thread = threading.Thread(target=body, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise MemoryError("no memory is left for another thread") from error
    try:
        while not ended.wait(pulse.left(limit)):
            if pulse.left(limit) > 0:
                continue
            if pulse.abandon():
                raise Hung(pulse.place, limit)
            ended.wait()  # it commits
    except BaseException:
        pulse.abandon()
        _abandoned.append(thread)
        raise
    if raised:
        try:
            raise raised.pop()
        finally:
            found.clear()
    result: Result = found.pop()
    return result


def within(timeout: Timeout, call: Callable[[], Result]) -> Result:
    """`call`, which has to end within the limit; Hung where it does not."""
    return watched(call, Pulse(), limit_of(timeout), PLANNING)


def limit_of(timeout: Timeout) -> float | None:
    """Seconds that a task may give no sign of life now; None: for ever."""
    if timeout == "none":
        return None
    if timeout == "auto":
        return min(max(AT_LEAST, TIMES * _longest), AT_MOST)
    return float(timeout)


def was_silent(seconds: float) -> None:
    """A task of this process has ended, and was silent for so long: `auto` learns from it."""
    global _longest
    _longest = max(_longest, seconds)


def left_behind(name: str = "") -> int:
    """Threads that were given up on and have not ended, of that name where one is given.

    Each holds what its task needed.
    """
    return sum(thread.is_alive() and thread.name.startswith(name) for thread in _abandoned)
