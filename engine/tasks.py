"""Runs one task in this process or, after a death, in a process of its own.

While a task runs, its *attempt* lies in the job's folder: a small file that is gone once the task
is committed or has failed in an orderly way. An attempt found beside no record means that a
process died at it. Such a task is done in a process of its own, so that what kills it (a decoder
that crashes at one page) kills nothing else. Three deaths at one frame there set that frame aside.
Deaths count only where they are seen from outside: a machine that reboots costs no frame.
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import JobStopped
from engine.isolation import Died, run_isolated
from engine.records import STOP, sentence
from engine.steps.carry_out import carry_out
from engine.steps.work import Frame, Outcome, Task, check_identity
from engine.worker import folder_of, in_flight, model_of

DEATHS = 3  # in a process of its own, at the same frame, until it is set aside

_open: set[Path] = set()  # attempts of this process
_lock = threading.Lock()
_apart = threading.Lock()  # one process more at a time: it has a model and an arena of its own


def run_task(task: Task) -> Outcome | None:
    """Do one task and commit it; None where the job has been asked to stop.

    Safe to repeat: the same task gives the same bytes.
    """
    context = task.context
    folder = folder_of(context)
    if folder.stopping(context.stop):
        return None
    model_of(context)
    with in_flight(context):
        check_identity(folder, context)  # or an attempt would be noted in the folder beneath
        # By shard: shards may survey the same frame, and are not each other's deaths.
        shard = context.stop.removeprefix(STOP)
        attempt = folder.place(f"attempts/{task.stack.name}", task.step + shard, task.index)
        if attempt.exists():
            with _apart:
                return _run_apart(task, attempt)
        _begin(attempt)
        try:
            return carry_out(task)
        finally:
            _end(attempt)


def forget_attempts() -> None:
    """Called before this process is ended on purpose: what it was at did not kill it."""
    for attempt in list(_open):  # without the lock: a disk that hangs must not hold up the end
        with suppress(OSError):
            attempt.unlink(missing_ok=True)


def _begin(attempt: Path) -> None:
    # Not flushed to the disk: a machine that goes down blames no block.
    with _lock:
        _note(attempt, {})
        _open.add(attempt)


def _note(attempt: Path, told: Any) -> None:
    try:
        attempt.parent.mkdir(parents=True, exist_ok=True)
        attempt.write_text(json.dumps(told))
    except OSError as error:
        raise sentence(error, attempt) from error


def _end(attempt: Path) -> None:
    with _lock, suppress(OSError):
        _open.discard(attempt)
        attempt.unlink(missing_ok=True)


def _run_apart(task: Task, attempt: Path) -> Outcome:
    """Do a task in a process of its own, again and again, but for frames that killed it."""
    deaths = _deaths(attempt)
    while True:
        skip = tuple((*frame, reason) for frame, reason in _killers(deaths))
        so_far = sum(len(hows) for hows in deaths.values())
        ended = run_isolated(replace(task, skip=(*task.skip, *skip)), so_far)
        if not isinstance(ended, Died):
            _end(attempt)
            return ended
        deaths.setdefault(ended.frame, []).append(ended.how)
        told = [[*(frame or ()), *hows] for frame, hows in deaths.items()]
        _note(attempt, told)
        if len(deaths.get(None, ())) >= DEATHS:
            raise JobStopped(
                f"{task.stack.name}: block {task.index} has ended its process {DEATHS} times "
                f"({ended.how}) at the step {task.step}; run the same command again to go on"
            )


def _killers(deaths: dict[Frame | None, list[str]]) -> list[tuple[Frame, str]]:
    return [
        (frame, f"its process died {len(hows)} times at this frame ({hows[-1]})")
        for frame, hows in deaths.items()
        if frame is not None and len(hows) >= DEATHS
    ]


def _deaths(attempt: Path) -> dict[Frame | None, list[str]]:
    """Deaths seen by earlier runs, by frame; None where it was at no frame."""
    try:
        told = json.loads(attempt.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    found: dict[Frame | None, list[str]] = {}
    for one in told if isinstance(told, list) else ():
        if not isinstance(one, list):
            continue
        numbers = [v for v in one if isinstance(v, int)]
        hows = [v for v in one if isinstance(v, str)]
        found[(numbers[0], numbers[1]) if len(numbers) == 2 else None] = hows
    return found
