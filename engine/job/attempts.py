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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

from engine.errors import JobStopped
from engine.job.isolation import Died, Kind, run_isolated
from engine.steps.carry_out import carry_out
from engine.steps.hangs import (
    ADVICE,
    TASK,
    Hung,
    Pulse,
    left_behind,
    limit_of,
    was_silent,
    watched,
)
from engine.steps.work import Outcome, Task, check_identity
from engine.steps.worker import folder_of, forget_stack, in_flight, model_of
from engine.store.folder import STOP, sentence

DEATHS = 3  # in a process of its own, at the same frame, until it is set aside
HANGS = 2  # at the same frame, in this process or another, until it is set aside
MAX_UNOPENED_BLOCKS = 2  # of one input, until its others are set aside without being tried
MAX_LEFT_THREADS = 4  # of tasks, until every task of this process is done in another
WATCHED = ("survey", "segment")  # steps that read inputs; the others read what the job wrote
SILENT = "did not end within"
UNOPENED = "its input could not be opened within"

log = logging.getLogger("stackseg")
_open: set[Path] = set()  # attempts of this process
_lock = threading.Lock()
_apart = threading.Lock()  # one process more at a time: it has a model and an arena of its own
_unopened: Counter[tuple[str, str]] = Counter()  # by job and input: tasks that could not open it

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
        is_unopened = watches and _unopened[_input(task)] >= MAX_UNOPENED_BLOCKS
        if is_unopened:
            reason = f"{UNOPENED} the limit at {MAX_UNOPENED_BLOCKS} blocks before; {ADVICE}"
            task = replace(task, skip=_all(task, reason))
        elif attempt.exists() or (watches and left_behind(TASK) >= MAX_LEFT_THREADS):
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
        return replace(outcome, hangs=is_unopened)


def forget_attempts() -> None:
    """Called before this process is ended on purpose: what it was at did not kill it."""
    for attempt in list(_open):  # without the lock: a disk that hangs must not hold up the end
        with suppress(OSError):
            attempt.unlink(missing_ok=True)


def _begin(attempt: Path) -> None:
    # Not flushed to the disk: a machine that goes down blames no block.
    with _lock:
        _note(attempt, [])
        _open.add(attempt)


def _note(attempt: Path, deaths: list[Died]) -> None:
    try:
        attempt.parent.mkdir(parents=True, exist_ok=True)
        attempt.write_text(json.dumps([asdict(one) for one in deaths]))
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
    _note(attempt, [_death(hung)])


def _run_here(task: Task) -> Outcome:
    """Do a task in this process; Hung where it gives no sign of life within its limit."""
    pulse = Pulse()
    outcome = watched(lambda: carry_out(task, pulse), pulse, _limit(task))
    if not task.skip:
        _unopened.pop(_input(task), None)
    if task.step in WATCHED:
        was_silent(pulse.longest)
    return outcome


def _run_apart(task: Task, attempt: Path) -> Outcome:
    """Do a task in a process of its own, again and again, but for frames that ended it."""
    with _apart:
        deaths = _deaths(attempt)
        while True:
            skip, hangs = _skip(task, deaths)
            try:
                apart = replace(task, skip=(*task.skip, *skip))
                ended = run_isolated(apart, len(deaths), _limit(task))
            except Hung as hung:
                log.warning("%s; its process was killed", _described(task, hung))
                ended = _death(hung)
                _unopened[_input(task)] += hung.place.opening
            if not isinstance(ended, Died):
                _end(attempt)
                return replace(ended, hangs=hangs)
            deaths.append(ended)
            _note(attempt, deaths)
            at_no_frame = [d for d in deaths if d.frame is None and d.kind != "unopened"]
            if len(at_no_frame) >= DEATHS:
                raise JobStopped(
                    f"{task.stack.name}: block {task.index} has ended its process {DEATHS} times "
                    f"({ended.how}) at the step {task.step}; run the same command again to go on"
                )


def _limit(task: Task) -> float | None:
    return limit_of(task.context.timeout) if task.step in WATCHED else None


def _death(hung: Hung) -> Died:
    """A hang as the death of the process, or of the thread, that it was in."""
    if hung.place.opening:
        return Died(None, f"{UNOPENED} {hung.seconds:g} s", "unopened")
    return Died(hung.place.frame, f"{SILENT} {hung.seconds:g} s", "hang")


def _described(task: Task, hung: Hung) -> str:
    frame = hung.place.frame
    at = f"frame t={frame[0]} z={frame[1]}" if frame else f"{task.step} {task.index}"
    return f"{task.stack.name}: {at}: {_death(hung).how}"


def _skip(task: Task, deaths: list[Died]) -> tuple[Skip, bool]:
    """The frames that are set aside for how they ended; and whether any of them hangs."""
    unopened = [death for death in deaths if death.kind == "unopened"]
    if len(unopened) >= HANGS:
        return _all(task, f"{unopened[-1].how}, twice; {ADVICE}"), True
    found, hangs = [], False
    for frame in dict.fromkeys(death.frame for death in deaths if death.frame is not None):
        silent = [d.how for d in deaths if d.frame == frame and d.kind == "hang"]
        died = [d.how for d in deaths if d.frame == frame and d.kind == "died"]
        if len(silent) >= HANGS:
            found.append((*frame, f"{silent[-1]}, twice; {ADVICE}"))
            hangs = True
        elif len(died) >= DEATHS:
            how = f"its process died {len(died)} times at this frame ({died[-1]})"
            found.append((*frame, how))
    return tuple(found), hangs


def _all(task: Task, reason: str) -> Skip:
    layout = task.stack.layout
    if task.step == "survey":
        return ((*layout.frame_of(task.index), reason),)
    return tuple((t, z, reason) for t, z in layout.block(task.index).frames)


def _input(task: Task) -> tuple[str, str]:
    return task.context.identity_sha256, task.stack.path


def _deaths(attempt: Path) -> list[Died]:
    """Deaths and hangs that were seen before, by earlier runs too."""
    try:
        record = json.loads(attempt.read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    return [death for one in record for death in _read(one)] if isinstance(record, list) else []


def _read(one: Any) -> list[Died]:
    """A death on record, or those at one frame as an older version wrote them."""
    match one:
        case {"frame": None, "how": str(how), "kind": kind} if kind in get_args(Kind):
            return [Died(None, how, kind)]
        case {"frame": [int(t), int(z)], "how": str(how), "kind": kind} if kind in get_args(Kind):
            return [Died((t, z), how, kind)]
        case [int(t), int(z), *hows]:
            return [Died((t, z), str(how)) for how in hows]
        case [*hows]:
            return [Died(None, str(how)) for how in hows]
    return []
