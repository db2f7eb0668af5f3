"""How a running job is told: one live line on a terminal, a log line every 30 s elsewhere."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from engine.block import BlockOutcome
from engine.errors import UsageError

LOG_SECONDS = 30.0
log = logging.getLogger("stackseg")


class Progress(Protocol):
    """Hears of every block that is done."""

    def showing(self, total: int, done: int) -> Any:
        """Context in which a job of `total` frames runs, `done` of them by an earlier run."""
        ...

    def advance(self, outcome: BlockOutcome) -> None:
        """A block has been committed."""
        ...


class SilentProgress:
    """Says nothing."""

    @contextmanager
    def showing(self, total: int, done: int) -> Iterator[None]:
        """See `Progress`."""
        yield

    def advance(self, outcome: BlockOutcome) -> None:
        """See `Progress`."""


class LineProgress:
    """Frames done, frames a second, time left and objects so far, on stderr."""

    def __init__(self, stream: TextIO = sys.stderr, every: float = LOG_SECONDS) -> None:
        self._stream = stream
        self._every = every
        self._live: Any = None

    @contextmanager
    def showing(self, total: int, done: int) -> Iterator[None]:
        """See `Progress`."""
        self._total, self._before, self._done, self._objects = total, done, done, 0
        self._begin = self._told = time.monotonic()
        if not self._stream.isatty():
            yield
            self._tell()
            return
        from rich.console import Console
        from rich.live import Live

        with Live(
            console=Console(file=self._stream), refresh_per_second=4, get_renderable=self._line
        ) as self._live:
            yield

    def advance(self, outcome: BlockOutcome) -> None:
        """See `Progress`."""
        self._done += outcome.frames
        self._objects += outcome.objects
        for t, z, reason in outcome.failed:
            log.warning("%s t=%d z=%d set aside: %s", outcome.stack, t, z, reason)
        if self._live is None and time.monotonic() - self._told >= self._every:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        log.info(self._line())

    def _line(self) -> str:
        seconds = time.monotonic() - self._begin
        speed = (self._done - self._before) / seconds if seconds else 0.0
        left = (self._total - self._done) / speed if speed else float("nan")
        return (
            f"{self._done:,} of {self._total:,} frames, {speed:.1f} frames/s, "
            f"{_clock(left)} left, {self._objects:,} objects"
        )


class JsonProgress:
    """A line of JSON per event, appended to a file, around another progress."""

    def __init__(self, path: Path, inner: Progress) -> None:
        self._path = path
        self._inner = inner
        try:
            path.open("a").close()
        except OSError as error:
            raise UsageError(f"--json-log {path}: cannot be written ({error.strerror})") from error

    @contextmanager
    def showing(self, total: int, done: int) -> Iterator[None]:
        """See `Progress`."""
        with self._path.open("a", encoding="utf-8") as self._file, self._inner.showing(total, done):
            self._event("start", frames=total, frames_done=done)
            yield
            self._event("end")

    def advance(self, outcome: BlockOutcome) -> None:
        """See `Progress`."""
        self._inner.advance(outcome)
        self._event(
            "block",
            stack=outcome.stack,
            block=outcome.block,
            frames=outcome.frames,
            objects=outcome.objects,
            failed=[{"t": t, "z": z, "reason": reason} for t, z, reason in outcome.failed],
            seconds=outcome.seconds,
        )

    def _event(self, kind: str, **values: Any) -> None:
        self._file.write(json.dumps({"event": kind, "time": time.time(), **values}) + "\n")
        self._file.flush()


def _clock(seconds: float) -> str:
    if seconds != seconds:  # not known yet
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
