"""Whose a folder is: a job claims it, resumes its own, and is refused by another's."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import OutputError, printable
from engine.stacks.inputs import places_of
from engine.store.committed import store_of
from engine.store.folder import IDENTITY, PRIVATE, RELABELLED, REPORT, SETTINGS, TABLES, JobFolder
from engine.store.identity import Holdings, JobIdentity
from engine.store.identity_differences import Difference, in_words, retry_hint
from engine.store.identity_differences import differences as identity_differences

Begun = Holdings | JobIdentity  # a job as --fresh needs to know it, and as others do
WAIT, LOOKS = 0.02, 1500  # s between two looks at a lease that is held for milliseconds; how many


def claim(folder: JobFolder, identity: JobIdentity, *, fresh: bool, alone: bool) -> None:
    """Make the folder this job's, or check that it already is.

    Raises OutputError where another job began here, naming what differs, and where a result
    would be written over something else. With `fresh`, what an earlier job left is removed.
    `alone`: no other run of the job is going on, so that what is staged is nobody's.
    """
    known = check(folder, identity, fresh=fresh)
    if isinstance(known, Holdings):
        _clear(folder, known)
    if known is None or fresh:
        folder.put_record(IDENTITY, identity)
    if alone:
        folder.sweep()


def check(folder: JobFolder, identity: JobIdentity, *, fresh: bool) -> Begun | None:
    """What `claim` would refuse, without writing; the job that is here, if any."""
    look = folder.holdings if fresh else folder.identity
    known: Begun | None = look()
    if known is None:
        own = [*TABLES, REPORT, *map(store_of, identity.stacks)]
        found = next((key for key in own if folder.own.holds(key)), None)
        # Another array task of this job may have claimed the folder a moment ago.
        known = look() if found else None
        if found and known is None:
            raise OutputError(
                f"{folder.own.where(found)}: is there already, and not by this job; give another "
                "--output"
            )
    if isinstance(known, Holdings):
        _check_removal(folder, known, identity)
    elif known is not None and (differing := differences(known, identity)):
        added = folder.is_added  # by a relabelling, which cannot retry
        hint = "" if added else retry_hint(differing)
        raise OutputError(
            f"{folder.root}: holds another job ({in_words(differing)}); {hint}"
            f"{'; otherwise ' if hint else ''}give another {'--name' if added else '--output'}, or "
            "start over with --fresh"
        )
    return known


def _check_removal(folder: JobFolder, known: Holdings, identity: JobIdentity) -> None:
    """Starting over must not remove an input, nor anything outside the folder."""
    inputs = {place for stack in identity.stacks.values() for place in places_of(stack.path)}
    holds = {folder: path for path in inputs for folder in (path, *path.parents)}
    for name in known.stacks:
        store = (folder.root / store_of(name)).resolve()
        if not store.is_relative_to(folder.root.resolve()):
            where = folder.own.where(IDENTITY)
            raise OutputError(f"{where}: names a stack outside of {folder.root}")
        around = (path for path in store.parents if path in inputs)
        if (taken := holds.get(store) or next(around, None)) is not None:
            raise OutputError(f"{taken}: is an input that --fresh would remove")


def _clear(folder: JobFolder, known: Holdings) -> None:
    """Remove what a job made, and nothing else: the user's own files may lie there as well.

    What says that something is complete goes first, so that an end in the middle of this
    leaves a job to be done, never one that seems to be done.
    """
    folder.own.delete(REPORT)
    for name in list(folder.own.children(PRIVATE)):
        if not folder.own.exists(key := f"{PRIVATE}/{name}"):  # records, timings, work, ...
            folder.own.delete_all(key)
    for name in known.stacks:  # of labels that were added to another job's result, these alone
        store = store_of(name)
        folder.results.delete_all(f"{store}/{known.labels}" if folder.is_added else store)
    folder.own.delete_all(RELABELLED)
    for key in (*TABLES, SETTINGS, IDENTITY):
        folder.own.delete(key)


@contextmanager
def lock(folder: JobFolder, array_task: str = "") -> Iterator[None]:
    """Hold the folder against other jobs; OutputError where one is running here.

    Tasks of a job array share it, each holding its own part: `array_task` is "3-of-8".
    """
    with folder.own.lease("lock", shared=bool(array_task)) as free:
        if not free:
            raise OutputError(f"{folder.root}: another job is writing here; wait for its end")
        if not array_task:
            yield
            return
        with folder.own.lease(f"lock-{array_task}") as own:
            if not own:
                raise OutputError(f"{folder.root}: array task {array_task} is running already")
            yield


@contextmanager
def completing(folder: JobFolder) -> Iterator[bool]:
    """True for the one array task that may complete the job; the others leave it to that one."""
    with folder.own.lease("lock-completing") as free:
        yield free


@contextmanager
def reading(folder: JobFolder) -> Iterator[None]:
    """Hold a result together with others that read it; OutputError where its job is running."""
    with folder.own.lease("lock", shared=True) as free:
        if not free:
            raise OutputError(f"{folder.root}: its job is running; wait for its end")
        yield


@contextmanager
def listing(folder: JobFolder) -> Iterator[None]:
    """Wait for the moment that others take to write the list of label images, and keep it."""
    for _ in range(LOOKS):
        with folder.own.lease("lock-labels") as free:
            if free:
                yield
                return
        time.sleep(WAIT)
    raise OutputError(f"{folder.own.where(PRIVATE)}/lock-labels: is held by another job; try again")


def check_writable(root: Path) -> None:
    """OutputError where `root` cannot be a job's folder. Leaves nothing behind."""
    try:
        existing = root.resolve()
        if (shown := printable(str(existing))) != str(existing):
            raise OutputError(f"{shown}: its name is not UTF-8; give another folder")
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a loop of links
        raise OutputError(f"{root}: cannot be a folder ({error})") from error
    if not existing.is_dir():
        raise OutputError(f"{root}: cannot be a folder, because {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        why = f"no permission in {existing}"
        if _is_read_only(existing):
            why = f"the file system of {existing} is read-only"
        raise OutputError(f"{root}: cannot be written ({why})")


def _is_read_only(folder: Path) -> bool:
    """Whether a folder's file system takes no writes from anyone; Windows does not tell."""
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def differences(known: JobIdentity, wanted: JobIdentity) -> list[Difference]:
    """What differs between two identities, where an input is the same by every path to it."""
    before, now = dict(known.stacks), dict(wanted.stacks)
    for name in before.keys() & now.keys():
        if before[name].path != now[name].path and _same_place(before[name].path, now[name].path):
            now[name] = now[name].model_copy(update={"path": before[name].path})
        if before[name] == now[name]:  # of many thousands, nearly all
            del before[name], now[name]
    return identity_differences(
        known.model_copy(update={"stacks": before}).model_dump(mode="json"),
        wanted.model_copy(update={"stacks": now}).model_dump(mode="json"),
    )


def _same_place(path: str, other: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)
