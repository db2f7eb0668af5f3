"""Runs one task in this process or, after a death or a hang, in a process of its own.

While a task runs, its *attempt* lies in the job's folder: a small file that is gone once the task
is committed or has failed in an orderly way. An attempt found beside no record means that a
process died at it. Such a task is done in a process of its own, so that what kills it (a decoder
that crashes at one page) kills nothing else. Three deaths at one frame there set that frame aside.
Deaths count only where they are seen from outside: a machine that reboots costs no frame.

A task that gives no sign of life within its limit is left behind in its thread, and done in a
process of its own as well, which is killed at the limit. Two hangs at one frame set it aside; two
while the input is opened set aside all frames of the task.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import JobStopped
from engine.hangs import Frame, Hung, Pulse, left_behind, limit_of, took, watched
from engine.isolation import Died, run_isolated
from engine.records import STOP, sentence
from engine.steps.carry_out import carry_out
from engine.steps.work import Outcome, Task, check_identity
from engine.worker import folder_of, forget_stack, in_flight, model_of

DEATHS = 3  # in a process of its own, at the same frame, until it is set aside
HANGS = 2  # at the same frame, in this process or another, until it is set aside
TASKS = 2  # whose input did not open, until its others are set aside without being tried
LEFT = 4  # threads left behind, until every task of this process is done in another
WATCHED = ("survey", "segment")  # steps that read inputs; the others read what the job wrote
SILENT = "did not end within"
CLOSED = "its input could not be opened within"
ADVICE = "see what it lies on, or give a longer --timeout"

log = logging.getLogger("stackseg")
_open: set[Path] = set()  # attempts of this process
_lock = threading.Lock()
_apart = threading.Lock()  # one process more at a time: it has a model and an arena of its own
_closed: Counter[tuple[str, str]] = Counter()  # by job and input: tasks that could not open it

Deaths = dict[Frame | None, list[str]]  # how they ended, by frame; None where they were at none
Skip = tuple[tuple[int, int, str], ...]  # t, z, reason


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
        watches = _limit(task) is not None
        if watches and _closed[_input(task)] >= TASKS:
            reason = f"{CLOSED} the limit at {TASKS} blocks before; {ADVICE}"
            task = replace(task, skip=_all(task, reason))
        elif attempt.exists() or (watches and left_behind() >= LEFT):
            return _run_apart(task, attempt)
        _begin(attempt)
        try:
            outcome = _run_here(task)
        except Hung as hung:
            _leave(task, attempt, hung)
            return _run_apart(task, attempt)
        except BaseException:
            _end(attempt)
            raise
        _end(attempt)
        return outcome


def forget_attempts() -> None:
    """Called before this process is ended on purpose: what it was at did not kill it."""
    for attempt in list(_open):  # without the lock: a disk that hangs must not hold up the end
        with suppress(OSError):
            attempt.unlink(missing_ok=True)


def hung(reason: str) -> bool:
    """Whether a frame was set aside because it, or its input, gave no sign of life."""
    return reason.startswith((SILENT, CLOSED))


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


def _leave(task: Task, attempt: Path, hung: Hung) -> None:
    """Leave a thread behind that hangs; its attempt stays, and tells the next run."""
    log.warning("%s; it is tried once more, in a process of its own", _described(task, hung))
    forget_stack(task.stack)
    with _lock:
        _open.discard(attempt)
    _add({}, _death(hung), attempt)


def _run_here(task: Task) -> Outcome:
    """Do a task in this process; Hung where it gives no sign of life within its limit."""
    pulse = Pulse()
    outcome = watched(lambda: carry_out(task, pulse), pulse, _limit(task))
    if not task.skip:
        _closed.pop(_input(task), None)
    took(sum(outcome.seconds.values()))
    return outcome


def _run_apart(task: Task, attempt: Path) -> Outcome:
    """Do a task in a process of its own, again and again, but for frames that ended it."""
    with _apart:
        deaths = _deaths(attempt)
        while True:
            skip = _skip(task, deaths)
            so_far = sum(len(hows) for hows in deaths.values())
            try:
                apart = replace(task, skip=(*task.skip, *skip))
                ended = run_isolated(apart, so_far, _limit(task))
            except Hung as hung:
                log.warning("%s; its process was killed", _described(task, hung))
                ended = _death(hung)
                _closed[_input(task)] += hung.place.opening
            if not isinstance(ended, Died):
                took(sum(ended.seconds.values()))
                _end(attempt)
                return ended
            _add(deaths, ended, attempt)
            others = [how for how in deaths.get(None, ()) if not how.startswith(CLOSED)]
            if len(others) >= DEATHS:
                raise JobStopped(
                    f"{task.stack.name}: block {task.index} has ended its process {DEATHS} times "
                    f"({ended.how}) at the step {task.step}; run the same command again to go on"
                )


def _limit(task: Task) -> float | None:
    return limit_of(task.context.timeout) if task.step in WATCHED else None


def _death(hung: Hung) -> Died:
    """A hang as the death of the process, or of the thread, that it was in."""
    if hung.place.opening:
        return Died(None, f"{CLOSED} {hung.seconds:g} s")
    return Died(hung.place.frame, f"{SILENT} {hung.seconds:g} s")


def _described(task: Task, hung: Hung) -> str:
    frame = hung.place.frame
    at = f"frame t={frame[0]} z={frame[1]}" if frame else f"{task.step} {task.index}"
    return f"{task.stack.name}: {at}: {_death(hung).how}"


def _add(deaths: Deaths, ended: Died, attempt: Path) -> None:
    deaths.setdefault(ended.frame, []).append(ended.how)
    _note(attempt, [[*(frame or ()), *hows] for frame, hows in deaths.items()])


def _skip(task: Task, deaths: Deaths) -> Skip:
    """The frames that are set aside for how they ended processes and threads so far."""
    closed = [how for how in deaths.get(None, ()) if how.startswith(CLOSED)]
    if len(closed) >= HANGS:
        return _all(task, f"{closed[-1]}, twice; {ADVICE}")
    found = []
    for frame, hows in deaths.items():
        if frame is None:
            continue
        silent = [how for how in hows if how.startswith(SILENT)]
        if len(silent) >= HANGS:
            found.append((*frame, f"{silent[-1]}, twice; {ADVICE}"))
        elif len(hows) - len(silent) >= DEATHS:
            how = f"its process died {len(hows)} times at this frame ({hows[-1]})"
            found.append((*frame, how))
    return tuple(found)


def _all(task: Task, reason: str) -> Skip:
    layout = task.stack.layout
    if task.step == "survey":
        return ((*layout.frame_of(task.index), reason),)
    return tuple((t, z, reason) for t, z in layout.block(task.index).frames)


def _input(task: Task) -> tuple[str, str]:
    return task.context.identity_sha256, task.stack.path


def _deaths(attempt: Path) -> Deaths:
    """Deaths seen by earlier runs, by frame; None where it was at no frame."""
    try:
        told = json.loads(attempt.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    found: Deaths = {}
    for one in told if isinstance(told, list) else ():
        if not isinstance(one, list):
            continue
        numbers = [v for v in one if isinstance(v, int)]
        hows = [v for v in one if isinstance(v, str)]
        found[(numbers[0], numbers[1]) if len(numbers) == 2 else None] = hows
    return found
