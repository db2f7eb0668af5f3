"""Signals: the first asks for a stop after the blocks in flight, the second stops at once."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from engine.errors import INTERRUPTED, OutputError
from engine.job.attempts import forget_attempts
from engine.store.folder import JobFolder

log = logging.getLogger("stackseg")


@contextmanager
def graceful_stop(folder: JobFolder, stop: str, grace: float) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM while a job runs.

    SIGTERM is what SLURM and Kubernetes send before they kill: the blocks in flight have `grace`
    seconds to be committed, then the process ends by itself. Either way the same command resumes.
    """

    def handle(number: int, frame: Any) -> None:
        """Ask for a stop, or end at once where one was asked for."""
        if folder.stopping(stop):
            _end_now("stopped at once; run the same command again to resume")
        with suppress(OutputError):  # a folder that is gone stops the job by itself
            folder.ask_to_stop(stop)
        if number == signal.SIGTERM:
            late = "stopped, with blocks unfinished at the end of --grace; the same command resumes"
            timer = threading.Timer(grace, _end_now, (late,))
            timer.daemon = True
            timer.start()
            timers.append(timer)
        log.info("stopping after the blocks in flight; interrupt again to stop at once")

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    timers: list[threading.Timer] = []
    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_now(why: str) -> None:
    # Threads at a block cannot be interrupted, and what they do commits itself or not.
    forget_attempts()
    print(f"stackseg: {why}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(INTERRUPTED)
