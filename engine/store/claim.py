"""Whose a folder is: a job claims it, goes on with its own, and is refused by another's."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import OutputError, printable
from engine.stacks.names import places_of
from engine.store.folder import RELABELLED, JobFolder, remove_folder, sentence

TABLES = ("frames.parquet", "frames.csv", "objects.parquet", "timings.parquet", "failures.json")
KINDS = ("records", "stitched", "levels", "objects", "timings", "attempts", "work")
WAIT, LOOKS = 0.02, 1500  # s between two looks at a lock that is held for milliseconds; how many
log = logging.getLogger("stackseg")


def claim(folder: JobFolder, identity: dict[str, Any], *, fresh: bool, alone: bool) -> None:
    """Make the folder this job's, or see that it already is.

    Raises OutputError where another job began here, naming what differs, and where a result
    would be written over something else. With `fresh`, what an earlier job left is removed.
    `alone`: no other run of the job is going on, so that what is staged is nobody's.
    """
    known = check(folder, identity, fresh=fresh)
    if known is not None and fresh:
        _clear(folder, known)
        known = None
    if known is None:
        folder.put_json(folder.identity_path, identity)
    if alone:
        shutil.rmtree(folder.private / "staging", ignore_errors=True)


def check(folder: JobFolder, identity: dict[str, Any], *, fresh: bool) -> dict[str, Any] | None:
    """What `claim` would refuse, without writing; the identity of the job that is here."""
    known = folder.identity()
    if known is None:
        own = [*TABLES, "job.json", *(f"{name}.zarr" for name in identity["stacks"])]
        found = next((path for path in (folder.root / n for n in own) if path.exists()), None)
        # Another shard of this job may have claimed the folder a moment ago.
        known = folder.identity() if found else None
        if found and known is None:
            raise OutputError(
                f"{found}: is there already, and not by this job; give another --output"
            )
        if known is None:
            return None
    if fresh:
        _check_removal(folder, known, identity)
    elif differing := differences(known, identity):
        added = folder.stores != folder.root  # by a relabelling, which cannot retry
        raise OutputError(
            f"{folder.root}: holds a job that differs in {differing}"
            f"{';' if added else _mended(differing)} "
            f"give another {'--name' if added else '--output'}, or start over with --fresh"
        )
    return known


def _mended(differing: str) -> str:
    """What lets a job go on whose failed frames alone are concerned."""
    if " content (" in differing:
        return "; give --retry-failed if only frames that had failed were mended; else"
    if differing.startswith("missing_chunks (there none"):
        return "; give --retry-failed to do the frames that had failed; else"
    return ";"


def _check_removal(folder: JobFolder, known: dict[str, Any], identity: dict[str, Any]) -> None:
    """Starting over must not remove an input, nor anything outside the folder."""
    given = [stack["path"] for stack in identity["stacks"].values()]
    inputs = {place for path in given for place in places_of(path)}
    holds = {folder: path for path in inputs for folder in (path, *path.parents)}
    for name in known["stacks"]:
        store = (folder.root / f"{name}.zarr").resolve()
        if not store.is_relative_to(folder.root.resolve()):
            raise OutputError(f"{folder.identity_path}: names a stack outside of {folder.root}")
        around = (path for path in store.parents if path in inputs)
        if (taken := holds.get(store) or next(around, None)) is not None:
            raise OutputError(f"{taken}: is an input that --fresh would remove")


def _clear(folder: JobFolder, known: dict[str, Any]) -> None:
    """Remove what a job made, and nothing else: the user's own files may lie beside it.

    What says that something is complete goes first, so that an end in the middle of this
    leaves a job to be done, never one that seems to be done.
    """
    try:
        (folder.root / "job.json").unlink(missing_ok=True)
        for name in KINDS:
            remove_folder(folder.private / name)
        for name in known["stacks"]:
            if folder.stores == folder.root:
                remove_folder(folder.store(name))
            else:  # labels that were added to the result of another job
                remove_folder(folder.store(name) / known["labels"])
        remove_folder(folder.root / RELABELLED)
        for name in TABLES:
            (folder.root / name).unlink(missing_ok=True)
        folder.settings_path.unlink(missing_ok=True)
        folder.identity_path.unlink()
    except OSError as error:
        raise sentence(error, folder.root) from error


@contextmanager
def lock(folder: JobFolder, shard: str = "") -> Iterator[None]:
    """Hold the folder against other jobs; OutputError where one is running here.

    Shards of one job share it, each holding its own part: `shard` is "3-of-8".
    """
    with _locked(folder, "lock", shared=bool(shard)) as free:
        if not free:
            raise OutputError(f"{folder.root}: another job is writing here; wait for its end")
        if not shard:
            yield
            return
        with _locked(folder, f"lock-{shard}") as own:
            if not own:
                raise OutputError(f"{folder.root}: shard {shard} is running already")
            yield


@contextmanager
def completing(folder: JobFolder) -> Iterator[bool]:
    """True for the one shard that may complete the job; the others leave it to that one."""
    with _locked(folder, "lock-completing") as free:
        yield free


@contextmanager
def reading(folder: JobFolder) -> Iterator[None]:
    """Hold a result together with others that read it; OutputError where its job is running."""
    with _locked(folder, "lock", shared=True) as free:
        if not free:
            raise OutputError(f"{folder.root}: its job is running; wait for its end")
        yield


@contextmanager
def listing(folder: JobFolder) -> Iterator[None]:
    """Wait for the moment that others take to write the list of label images, and keep it."""
    for _ in range(LOOKS):
        with _locked(folder, "lock-labels") as free:
            if free:
                yield
                return
        time.sleep(WAIT)
    raise OutputError(f"{folder.private / 'lock-labels'}: is held by another job; try again")


@contextmanager
def _locked(folder: JobFolder, name: str, *, shared: bool = False) -> Iterator[bool]:
    """Whether a lock could be taken; the system lets go of it when this process ends."""
    path = folder.private / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")  # NFS wants to read what is locked for sharing
    except OSError as error:
        raise sentence(error, folder.root) from error
    with file:
        yield _try_lock(file.fileno(), shared=shared)


def _try_lock(handle: int, *, shared: bool) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return shared  # such locks cannot be shared; shards there rely on their own
        return True
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return False
        log.warning("this file system has no locks: see that no other job writes here")
    return True


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
        raise OutputError(f"{root}: cannot be written (no permission in {existing})")


def differences(known: dict[str, Any], wanted: dict[str, Any]) -> str:
    """What differs between two identities, in words; empty where nothing does.

    An input is the same under every path that leads to it.
    """
    wanted = json.loads(json.dumps(wanted))
    for name, stack in wanted["stacks"].items():
        before, now = known["stacks"].get(name, {}).get("path"), stack["path"]
        if isinstance(before, str) and os.path.realpath(before) == os.path.realpath(now):
            stack["path"] = before
    return _differences(known, wanted)


def _differences(known: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> str:
    found = []
    for key in [*known, *(k for k in wanted if k not in known)]:
        before, now = known.get(key), wanted.get(key)
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            found.append(_differences(before, now, f"{prefix}{key} "))
        else:
            found.append(f"{prefix}{key} (there {_short(before)}, here {_short(now)})")
    return ", ".join(found)


def _short(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(one, dict) and "kind" in one for one in value):
        return ", ".join(str(one["kind"]) for one in value)  # arrays: labels, probability, image
    text = "none" if value is None else str(value)
    if len(text) <= 60:
        return text
    return f"...{text[-57:]}" if text.startswith(os.sep) else f"{text[:57]}..."  # of a path its end
