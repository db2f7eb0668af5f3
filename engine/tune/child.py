"""A process that runs the network by one setting: so that its memory is that setting's alone.

The parent sends its `Work`, then a line for each thing to do; each is answered:

    (start)  ->  "ready"    the model is loaded and has run once
    pass     ->  "seconds"  the timed frames went through the network, several at a time
    labels   ->  "done"     peak memory until then, bytes; labels are in the work's folder
                 "error"    a sentence; the process ends
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from engine.errors import first_line
from engine.inference.agreement import Look
from engine.inference.tiles import predict
from engine.model.file import open_model
from engine.runtimes.base import Session, Target
from engine.runtimes.registry import open_session, runtime_of

TIMED = 2  # frames of the sample that are timed

Send = Callable[[str, Any], None]


@dataclass(frozen=True)
class Work:
    """What a process is to run."""

    model: str
    target: Target  # resolved
    looks: tuple[Look, ...]
    workers: int  # frames at a time
    threads: int  # for each
    fixes_shape: bool  # sessions are for runs of one shape, as in the whole job
    folder: str  # for labels: 0.npy, 1.npy, ... in the order of the looks


def main() -> None:
    """The process: does what comes through stdin until that ends."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends, and with it this one

    def send(kind: str, value: Any) -> None:
        pickle.dump((kind, value), sink)
        sink.flush()

    try:
        _serve(pickle.load(source), source, send)
    except Exception as error:  # all of them mean that the setting does not work here
        send("error", first_line(error))


def _serve(work: Work, source: BinaryIO, send: Send) -> None:
    model = open_model(work.model)
    by_kind: dict[Any, Session] = {}
    sessions: list[Session] = []  # of each look, as a job has them
    for look in work.looks:
        shape = (1, *look.tiling.tile_shape) if work.fixes_shape else None
        if (look.dtype, shape) not in by_kind:
            by_kind[look.dtype, shape] = open_session(
                model, look.dtype, work.target, work.threads, work.workers, shape=shape
            )
        sessions.append(by_kind[look.dtype, shape])
    first = work.looks[0]
    predict(first.pixels, first.statistics, first.tiling, sessions[0])
    send("ready", None)
    for command in iter(lambda: source.readline().strip(), b""):
        if command == b"pass":
            send("seconds", _pass(work, sessions))
            # What idles while others are measured should hold no more than it must.
            runtime_of(work.target.runtime).release_memory()
        else:
            peak = peak_bytes()
            for number, (look, session) in enumerate(zip(work.looks, sessions, strict=True)):
                labels = look.labels(session, model.spec.n_class_outputs)
                np.save(Path(work.folder) / f"{number}.npy", labels)
            send("done", peak)


def _pass(work: Work, sessions: list[Session]) -> float:
    """Seconds in which each worker takes all timed frames through the network."""

    def run(_: int) -> None:
        for look, session in zip(work.looks[:TIMED], sessions, strict=False):
            predict(look.pixels, look.statistics, look.tiling, session)

    with ThreadPoolExecutor(work.workers) as pool:
        start = time.perf_counter()
        list(pool.map(run, range(work.workers)))
        return time.perf_counter() - start


def peak_bytes() -> int:
    """The most bytes of memory that this process ever held."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":  # whose getrusage counts what the parent held when it forked
        found = re.search(r"^VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(), re.M)
        if found:
            return int(found[1]) * 1024
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
