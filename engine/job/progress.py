"""How a running job is told: one live line on a terminal, a log line every 30 s elsewhere."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from engine.errors import UsageError
from engine.steps.task import Outcome

LOG_SECONDS = 30.0
log = logging.getLogger("stackseg")


class Progress(Protocol):
    """Hears of every block that is done."""

    def showing(self, total: int, done: float, objects: int) -> Any:
        """Context of a job of `total` frames, `done` of them, with `objects`, by an earlier run."""
        ...

    def begin(self, step: str) -> None:
        """A step begins: survey, segment, stitch or finish."""
        ...

    def advance(self, outcome: Outcome) -> None:
        """A block has been committed."""
        ...


class SilentProgress:
    """Says nothing."""

    @contextmanager
    def showing(self, total: int, done: float, objects: int) -> Iterator[None]:
        """See `Progress`."""
        yield

    def begin(self, step: str) -> None:
        """See `Progress`."""

    def advance(self, outcome: Outcome) -> None:
        """See `Progress`."""


class LineProgress:
    """Frames done, frames a second, time left and objects so far, on stderr."""

    def __init__(self, stream: TextIO = sys.stderr, every: float = LOG_SECONDS) -> None:
        self._stream = stream
        self._every = every

    @contextmanager
    def showing(self, total: int, done: float, objects: int) -> Iterator[None]:
        """See `Progress`."""
        self._total, self._before, self._done, self._objects = total, done, done, objects
        self._begin, self._failed = time.monotonic(), 0
        self._step, self._tasks = "segment", 0
        if not self._stream.isatty():
            ended = threading.Event()
            clock = threading.Thread(target=self._tell_until, args=(ended,), daemon=True)
            clock.start()
            try:
                yield
            finally:
                ended.set()
                clock.join()
            log.info(self._line())
            return
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, highlight=False)
        with Live(console=console, refresh_per_second=4, get_renderable=self._line):
            yield

    def begin(self, step: str) -> None:
        """See `Progress`."""
        self._step, self._tasks = step, 0

    def advance(self, outcome: Outcome) -> None:
        """See `Progress`."""
        self._tasks += 1
        self._done += outcome.frames
        self._objects += outcome.objects
        self._failed += len(outcome.failed)
        for t, z, reason in outcome.failed:
            log.warning("%s t=%d z=%d set aside: %s", outcome.stack, t, z, reason)

    def _tell_until(self, ended: threading.Event) -> None:
        while not ended.wait(self._every):
            log.info(self._line())

    def _line(self) -> str:
        seconds = time.monotonic() - self._begin
        speed = (self._done - self._before) / seconds if seconds else 0.0
        left = (self._total - self._done) / speed if speed else float("nan")
        return (
            f"{_frames(self._done)} of {self._total:,} frames, {speed:.1f} frames/s, "
            f"{_clock(left)} left, {self._objects:,} objects"
            + (f", {self._failed:,} frames set aside" if self._failed else "")
            + (f"; {self._step}: {self._tasks:,} done" if self._step != "segment" else "")
        )


class JsonProgress:
    """A line of JSON per event, appended to a file, around another progress."""

    def __init__(self, path: Path, inner: Progress) -> None:
        self._path = path
        self._inner = inner
        # The file is made when the job begins: a job that is refused leaves nothing behind.
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UsageError(f"--json-log {path}: cannot be written")

    @contextmanager
    def showing(self, total: int, done: float, objects: int) -> Iterator[None]:
        """See `Progress`."""
        with self._inner.showing(total, done, objects):
            self._event("start", frames=total, frames_done=done)
            try:
                yield
            except BaseException as error:
                self._event("stopped", reason=str(error) or type(error).__name__)
                raise
            self._event("end")

    def begin(self, step: str) -> None:
        """See `Progress`."""
        self._inner.begin(step)
        self._event("step", step=step)

    def advance(self, outcome: Outcome) -> None:
        """See `Progress`."""
        self._inner.advance(outcome)
        self._event(
            "block",
            stack=outcome.stack,
            step=outcome.step,
            block=outcome.index,
            frames=outcome.frames,
            objects=outcome.objects,
            failed=[{"t": t, "z": z, "reason": reason} for t, z, reason in outcome.failed],
            seconds=outcome.seconds,
        )

    def _event(self, kind: str, **values: Any) -> None:
        line = json.dumps({"event": kind, "time": time.time(), **values}) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:  # a log is not worth a night's work
            log.warning("%s: cannot be written (%s)", self._path, error.strerror)


def _frames(count: float) -> str:
    """Whole frames, or tenths where regions of one are being done."""
    whole = round(count, 1)
    return f"{whole:,.0f}" if whole == int(whole) else f"{whole:,.1f}"


def _clock(seconds: float) -> str:
    if seconds != seconds:  # not known yet
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
