"""A task in a process of its own: if that dies, this one sees it and lives.

Parent and child speak through the child's own pipes: the task goes in, then frames that are
begun and at last the outcome come out. Nothing is unpickled but what these two send each other.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from engine.steps.work import Frame, Outcome, Task


@dataclass(frozen=True)
class Died:
    """How a child ended before its task did."""

    frame: Frame | None  # that it was at, if at any
    how: str  # "SIGSEGV", "exit status 3"


def run_isolated(task: Task, deaths: int) -> Outcome | Died:
    """Do a task in a child. What the task raises is raised here. `deaths`: it has had before."""
    # In a group of its own: a Ctrl-C at the terminal is for the job, which lets blocks finish.
    group = None if sys.platform == "win32" else 0
    with subprocess.Popen(
        _command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=group
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        frame: Frame | None = None
        try:
            pickle.dump((task, deaths), child.stdin)
            child.stdin.flush()
            while True:
                kind, value = pickle.load(child.stdout)
                if kind == "frame":
                    frame = value
                elif kind == "error":
                    raise value
                else:
                    outcome: Outcome = value
                    return outcome
        except (EOFError, pickle.UnpicklingError, BrokenPipeError):
            status = child.wait()
            return Died(frame, _how(status))
        finally:
            with suppress(BrokenPipeError):
                child.stdin.close()
            child.wait()


def _command() -> list[str]:
    """Starts the child with this process's path, so that it imports what this one does.

    The folder in which the command was run may hold an `engine.py` of the user's: it is not on
    the path unless it is on this process's.
    """
    ours = str(Path(__file__).parents[1])
    path = [entry for entry in sys.path if entry]  # "" is whatever folder this happens to be
    path = path if ours in path else [ours, *path]
    code = f"import sys; sys.path[:] = {path!a}; from engine.isolation import main; main()"
    return [sys.executable, "-P", "-c", code]


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def main() -> None:
    """The child: do the task that comes through stdin."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the messages
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # whoever started this decides when it ends
    from engine.steps.carry_out import carry_out

    task, deaths = pickle.load(source)
    threading.Thread(target=_end_with_parent, args=(source,), daemon=True).start()
    lock = threading.Lock()

    def tell(kind: str, value: Any) -> None:
        with lock:
            pickle.dump((kind, value), sink)
            sink.flush()

    try:
        outcome = carry_out(task, lambda frame: tell("frame", frame), deaths)
    except Exception as error:  # all of them are the parent's to judge
        tell("error", error)
    else:
        tell("done", outcome)
    sink.flush()
    os._exit(0)  # a thread still waits for the parent: the interpreter would trip over it


def _end_with_parent(source: BinaryIO) -> None:
    source.read()  # ends when the parent closes its end, or is gone
    os._exit(1)
