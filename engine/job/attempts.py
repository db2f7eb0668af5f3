"""Runs one task in this process or, after a death or a hang, in a process of its own.

While a task runs, its *attempt* lies in the job's folder: a small record that is gone once the
task is committed or has failed in an orderly way. An attempt found where no record is means that a
process died at it. Such a task is done in a process of its own, so that what kills it (a decoder
that crashes at one page) kills nothing else. Three deaths at one frame there set that frame aside.
Deaths count only where a parent observes them: a machine that reboots costs no frame.

A task that gives no sign of life within its limit is left behind in its thread, and done in a
process of its own as well, which is killed at the limit. Two hangs at one frame set it aside; two
while the input is opened set aside all frames of the task.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from engine.errors import JobStopped, OutputError
from engine.job.isolation import run_isolated
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
from engine.steps.registry import carry_out, step_of
from engine.steps.task import Outcome, Task, check_identity
from engine.steps.worker import folder_of, forget_stack, in_flight, model_of
from engine.store.folder import STOP, JobFolder, key_of
from engine.store.records import AttemptRecord, Death

DEATHS = 3  # in a process of its own, at the same frame, until it is set aside
HANGS = 2  # at the same frame, in this process or another, until it is set aside
MAX_UNOPENED_BLOCKS = 2  # of one input, until its others are set aside without being tried
MAX_LEFT_THREADS = 4  # of tasks, until every task of this process is done in another
SILENT = "did not end within"
UNOPENED = "its input could not be opened within"

log = logging.getLogger("stackseg")
_lock = threading.Lock()
_apart = threading.Lock()  # one process more at a time: it has a model and an arena of its own
_unopened: Counter[tuple[str, str]] = Counter()  # by job and input: tasks that could not open it

Skip = tuple[tuple[int, int, str], ...]  # t, z, reason


@dataclass(frozen=True, eq=False)
class Attempt:
    """A task's attempt in the job's folder. Not flushed: a machine that goes down blames none."""

    folder: JobFolder
    key: str

    def put(self, deaths: Iterable[Death] = ()) -> None:
        """Keep the deaths and hangs so far."""
        self.folder.put_record(self.key, AttemptRecord(deaths=tuple(deaths)), durable=False)

    def deaths(self) -> list[Death]:
        """Deaths and hangs so far, those of earlier runs too."""
        record = self.folder.record(AttemptRecord, self.key)
        return list(record.deaths) if record else []

    def begin(self) -> None:
        """This process begins the task."""
        with _lock:
            self.put()
            _open.add(self)

    def end(self) -> None:
        """The task is committed, or has failed in an orderly way."""
        with _lock, suppress(OutputError):
            _open.discard(self)
            self.remove()

    def leave(self, death: Death) -> None:
        """The thread that did the task is left behind; the attempt stays, for the next run."""
        with _lock:
            _open.discard(self)
        self.put([death])

    def remove(self) -> None:
        """Remove the attempt."""
        self.folder.own.delete(self.key, durable=False)


_open: set[Attempt] = set()  # of this process


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
        check_identity(folder, context)  # or an attempt would be put where the disk was mounted
        # By array task: two may survey the same frame, and are not each other's deaths.
        array_task = context.stop.removeprefix(STOP)
        attempt = Attempt(
            folder, key_of(f"attempts/{task.stack.name}", task.step + array_task, task.index)
        )
        is_limited = _limit(task) is not None
        is_unopened = is_limited and _unopened[_input(task)] >= MAX_UNOPENED_BLOCKS
        if is_unopened:
            reason = f"{UNOPENED} the limit at {MAX_UNOPENED_BLOCKS} blocks before; {ADVICE}"
            task = replace(task, skip=_all_frames(task, reason))
        elif folder.own.exists(attempt.key) or (
            is_limited and left_behind(TASK) >= MAX_LEFT_THREADS
        ):
            return _run_apart(task, attempt)
        attempt.begin()
        try:
            outcome = _run_here(task)
        except Hung as hung:
            log.warning("%s; it is tried once more, in a process of its own", _words(task, hung))
            forget_stack(task.stack)
            attempt.leave(_death(hung))
            return _run_apart(task, attempt)
        except BaseException:
            attempt.end()
            raise
        attempt.end()
        return replace(outcome, hangs=is_unopened)


def forget_attempts() -> None:
    """Called before this process is ended on purpose: what it was at did not kill it."""
    for attempt in list(_open):  # without the lock: a disk that hangs must not hold up the end
        with suppress(OutputError):
            attempt.remove()


def _run_here(task: Task) -> Outcome:
    """Do a task in this process; Hung where it gives no sign of life within its limit."""
    pulse = Pulse()
    outcome = watched(lambda: carry_out(task, pulse), pulse, _limit(task))
    if not task.skip:
        _unopened.pop(_input(task), None)
    if step_of(task.step).reads_input:
        was_silent(pulse.longest)
    return outcome


def _run_apart(task: Task, attempt: Attempt) -> Outcome:
    """Do a task in a process of its own, again and again, but for frames that ended it."""
    with _apart:
        deaths = attempt.deaths()
        while True:
            skip, hangs = _skip(task, deaths)
            try:
                apart = replace(task, skip=(*task.skip, *skip))
                ended = run_isolated(apart, len(deaths), _limit(task))
            except Hung as hung:
                log.warning("%s; its process was killed", _words(task, hung))
                ended = _death(hung)
                _unopened[_input(task)] += hung.place.opening
            if not isinstance(ended, Death):
                attempt.end()
                return replace(ended, hangs=hangs)
            deaths.append(ended)
            attempt.put(deaths)
            at_no_frame = [d for d in deaths if d.frame is None and d.kind != "unopened"]
            if len(at_no_frame) >= DEATHS:
                raise JobStopped(
                    f"{task.stack.name}: block {task.index} has ended its process {DEATHS} times "
                    f"({ended.how}) at the step {task.step}; run the same command again"
                )


def _limit(task: Task) -> float | None:
    return limit_of(task.context.timeout) if step_of(task.step).reads_input else None


def _death(hung: Hung) -> Death:
    """A hang as the death of the process, or of the thread, that it was in."""
    if hung.place.opening:
        return Death(frame=None, how=f"{UNOPENED} {hung.seconds:g} s", kind="unopened")
    return Death(frame=hung.place.frame, how=f"{SILENT} {hung.seconds:g} s", kind="hang")


def _words(task: Task, hung: Hung) -> str:
    frame = hung.place.frame
    at = f"frame t={frame[0]} z={frame[1]}" if frame else f"{task.step} {task.index}"
    return f"{task.stack.name}: {at}: {_death(hung).how}"


def _skip(task: Task, deaths: list[Death]) -> tuple[Skip, bool]:
    """The frames that are set aside for how they ended; and whether any of them hangs."""
    unopened = [death for death in deaths if death.kind == "unopened"]
    if len(unopened) >= HANGS:
        return _all_frames(task, f"{unopened[-1].how}, twice; {ADVICE}"), True
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


def _all_frames(task: Task, reason: str) -> Skip:
    layout = task.stack.layout
    if task.step == "survey":
        return ((*layout.frame_of(task.index), reason),)
    return tuple((t, z, reason) for t, z in layout.block(task.index).frames)


def _input(task: Task) -> tuple[str, str]:
    return task.context.identity_sha256, task.stack.path
