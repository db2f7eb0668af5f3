"""Progress of what takes long: a bar and a line on a terminal, a log line every 30 s elsewhere.

Neither is shown where the log is kept to warnings, as --quiet does.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError, plural

if TYPE_CHECKING:
    from rich.console import RenderableType

    from engine.steps.task import Outcome

LOG_SECONDS = 30.0
BAR = 24  # characters
log = logging.getLogger("stackseg")


class Progress:
    """Progress of a job; this one shows nothing."""

    def showing(self, total: int, done: float, objects: int | None) -> AbstractContextManager[None]:
        """Context of a job of `total` frames, `done` of them, with `objects`, by an earlier run.

        `objects` is None where the job makes class maps alone.
        """
        return nullcontext()

    def begin(self, step: str) -> None:
        """A step begins: survey, segment, stitch, finish or a level."""

    def advance(self, outcome: Outcome) -> None:
        """A block has been committed."""


class LineProgress(Progress):
    """Frames done, frames a second, time left and objects so far, on stderr."""

    @contextmanager
    def showing(self, total: int, done: float, objects: int | None) -> Iterator[None]:
        """See `Progress`."""
        self._total, self._before, self._done, self._objects = total, done, done, objects
        self._begin, self._failed = time.monotonic(), 0
        self._step, self._tasks = "segment", 0
        with shown(self._line, lambda: self._done / max(total, 1)):
            yield
        log.info(self._line())

    def begin(self, step: str) -> None:
        """See `Progress`."""
        self._step, self._tasks = step, 0

    def advance(self, outcome: Outcome) -> None:
        """See `Progress`."""
        self._tasks += 1
        self._done += outcome.frames
        if self._objects is not None:
            self._objects += outcome.objects
        self._failed += len(outcome.failed)
        for t, z, reason in outcome.failed:
            log.warning("%s t=%d z=%d set aside: %s", outcome.stack, t, z, reason)

    def _line(self) -> str:
        seconds = time.monotonic() - self._begin
        speed = (self._done - self._before) / seconds if seconds else 0.0
        rest = self._total - self._done
        left = timedelta(seconds=round(rest / speed)) if speed else "-:--:--"
        return (
            f"{_frames(self._done)} of {plural(self._total, 'frame')}"
            + (f", {speed:.1f} frames/s" if rest or self._done > self._before else "")
            + (f", {left} left" if rest else "")
            + ("" if self._objects is None else f", {plural(self._objects, 'object')}")
            + (f", {plural(self._failed, 'frame')} set aside" if self._failed else "")
            + (f"; {self._step}: {self._tasks:,} done" if self._step != "segment" else "")
        )


class JsonProgress(Progress):
    """A line of JSON per event, appended to a file, around another progress."""

    def __init__(self, path: Path, inner: Progress) -> None:
        self._path = path
        self._inner = inner
        # The file is created when the job begins: a refused job leaves nothing behind.
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UsageError(f"--json-log {path}: cannot be written")

    @contextmanager
    def showing(self, total: int, done: float, objects: int | None) -> Iterator[None]:
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


@contextmanager
def counter(noun: str, every: float | None = LOG_SECONDS) -> Iterator[Callable[[int, int], None]]:
    """A function to call with the numbers of things done and in total; see `shown`."""
    done, total = 0, 0

    def count(now: int, all_: int) -> None:
        nonlocal done, total
        done, total = now, all_

    def line() -> str:
        return f"{done:,} of {plural(total, noun)}" if total else ""

    with shown(line, lambda: done / max(total, 1), every):
        yield count


@contextmanager
def shown(
    line: Callable[[], str], share: Callable[[], float], every: float | None = LOG_SECONDS
) -> Iterator[None]:
    """Show what `line` and `share` (0..1) give, as long as the context lasts.

    On a terminal a bar and the line are live. Elsewhere the line is logged every `every` seconds,
    or never.
    """
    if not log.isEnabledFor(logging.INFO):
        yield
    elif sys.stderr is not None and sys.stderr.isatty():
        with _live(line, share):
            yield
    else:
        ended = threading.Event()

        def repeat() -> None:
            while not ended.wait(every):
                log.info(line())

        clock = threading.Thread(target=repeat, daemon=True)
        if every is not None:
            clock.start()
        try:
            yield
        finally:
            ended.set()


@contextmanager
def _live(line: Callable[[], str], share: Callable[[], float]) -> Iterator[None]:
    from rich.console import Console
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    def row() -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        grid.add_row(ProgressBar(total=1.0, completed=share(), width=BAR), line())
        return grid

    console = Console(file=sys.stderr, highlight=False, markup=False)
    live = Live(console=console, get_renderable=row, transient=True, redirect_stdout=False)
    with ExitStack() as after, live:
        # What is logged meanwhile goes above the line, through the stderr that Live puts in place.
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is console.file:
                after.callback(handler.setStream, handler.setStream(sys.stderr))
        yield


def _frames(count: float) -> str:
    """Whole frames, or tenths where regions of one are being done."""
    whole = round(count, 1)
    return f"{whole:,.0f}" if whole == int(whole) else f"{whole:,.1f}"
