"""A task in a process of its own: if that dies, this one learns how, and lives.

Parent and child speak through the child's own pipes: the task goes in, then signs of life, which
say where it is, and at last the outcome come out. Nothing is unpickled but what these two send
each other.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from engine.errors import JobStopped, StacksegError, first_line
from engine.steps.hangs import Hung, Place, Pulse
from engine.steps.task import Outcome, Task
from engine.store.records import Death

STARTING = 300.0  # s that a child has at least until it is at its task: it loads the model
GOING = 5.0  # s that a killed child has to be gone; one that a broken disk holds stays
Messages = queue.SimpleQueue[tuple[str, Any]]


def run_isolated(task: Task, deaths: int, limit: float | None) -> Outcome | Death:
    """Do a task in a child. What the task raises is raised here.

    `deaths`: it has had before. Raises Hung where the child gives no sign of life for `limit`
    seconds; it is killed then.
    """
    # In a group of its own: a Ctrl-C at the terminal is for the job, which lets blocks finish.
    group = None if sys.platform == "win32" else 0
    child = subprocess.Popen(
        python("engine.job.isolation"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=group,
    )
    assert child.stdin is not None and child.stdout is not None
    messages: Messages = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(child.stdout, messages), daemon=True).start()
    try:
        with suppress(BrokenPipeError):
            pickle.dump((task, deaths), child.stdin)
            child.stdin.flush()
        return _await(child, messages, limit)
    finally:
        with suppress(BrokenPipeError):
            child.stdin.close()  # which ends it
        with suppress(subprocess.TimeoutExpired):
            child.wait(GOING)


def _listen(source: BinaryIO, messages: Messages) -> None:
    # What is cut off in the middle raises almost anything; it has ended either way.
    with suppress(Exception), source:
        while True:
            messages.put(pickle.load(source))
    messages.put(("end", None))


def _await(
    child: subprocess.Popen[bytes],
    messages: Messages,
    limit: float | None,
) -> Outcome | Death:
    place, commits = Place(), False
    patience = None if limit is None else max(limit, STARTING)
    while True:
        try:
            kind, value = messages.get(timeout=patience)
        except queue.Empty:
            child.kill()
            raise Hung(place, patience or 0.0) from None
        if kind == "place":
            place = value
            patience = None if commits else limit
        elif kind == "commits":  # from here on it is not given up, whatever it tells
            commits, patience = True, None
        elif kind == "error":
            raise value
        elif kind == "end":
            return Death(frame=place.frame, how=how_it_ended(child.wait()))
        else:
            outcome: Outcome = value
            return outcome


def python(module: str) -> list[str]:
    """A command that calls `main` of a module in a process of its own.

    The child gets this process's path, so that it imports what this one does. The folder in which
    the command was run may hold an `engine.py` of the user's: it is not on the path unless it is on
    this process's.
    """
    ours = str(Path(__file__).parents[2])
    path = [entry for entry in sys.path if entry]  # "" is whatever folder this happens to be
    path = path if ours in path else [ours, *path]
    code = f"import sys; sys.path[:] = {path!a}; from {module} import main; main()"
    return [sys.executable, "-P", "-c", code]


def how_it_ended(status: int) -> str:
    """How a process ended, by its return code: "exit status 1", "SIGSEGV"."""
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
    from engine.steps.registry import carry_out
    from engine.steps.worker import warm_up

    task, deaths = pickle.load(source)
    threading.Thread(target=_end_with_parent, args=(source,), daemon=True).start()
    lock = threading.Lock()

    def send(kind: str, value: Any = None) -> None:
        with lock:
            pickle.dump((kind, value), sink)
            sink.flush()

    pulse = Pulse(lambda place: send("place", place), lambda: send("commits"))
    try:
        if task.step == "segment" and not task.stack.source:
            warm_up(task.context, [task.stack])  # takes seconds, of none of its frames
        outcome = carry_out(task, pulse, deaths)
    except Exception as error:  # all of them are the parent's to judge
        send("error", sendable(error, task))
    else:
        send("done", outcome)
    sink.flush()
    os._exit(0)  # a thread still waits for the parent: the interpreter would trip over it


def sendable(error: Exception, task: Task) -> Exception:
    """An error that surely survives the way to the parent: others may not unpickle there."""
    if isinstance(error, StacksegError | MemoryError):
        return error
    return JobStopped(
        f"{task.stack.name}: {task.step} {task.index} failed ({type(error).__name__}: "
        f"{first_line(error)}); run the same command again"
    )


def _end_with_parent(source: BinaryIO) -> None:
    source.read()  # ends when the parent closes its end, or is gone
    os._exit(1)
