"""The job's folder: what is committed, and how a second run knows where to go on.

    DIR/.stackseg/
      identity.json             what the job is: model, inputs, settings that change results
      lock                      held while a job runs; the system lets go of it if the job dies
      staging/                  objects on their way; whatever is found here is swept away
      stop                      while it is there, no block is begun, on whatever machine
      records/NAME/000012.json  one immutable record per block: the commit point
      objects/NAME/000012.parquet, timings/NAME/000012.json

Every object is written in staging, flushed to the disk, and renamed into place; its folder is
flushed after that. A block's record is put last, so that a record means: all of it is there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import OutputError
from engine.layout import Block

PRIVATE = ".stackseg"
TABLES = ("frames.parquet", "frames.csv", "objects.parquet", "timings.parquet", "failures.json")
log = logging.getLogger("stackseg")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class JobFolder:
    """A job's output folder, `DIR`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private = root / PRIVATE

    # -- objects ------------------------------------------------------------------------------

    def put(self, path: Path, data: bytes) -> None:
        """Write an object: all of it, or nothing, and on the disk when this returns."""
        staged = self.private / "staging" / uuid.uuid4().hex
        try:
            staged.parent.mkdir(parents=True, exist_ok=True)
            _make_folder(path.parent)
            with staged.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            staged.replace(path)
            _flush_folder(path.parent)
        except OSError as error:
            staged.unlink(missing_ok=True)
            raise _sentence(error, path) from error

    def put_json(self, path: Path, content: Any) -> None:
        """`put` of `content` as JSON, keys in the order given."""
        self.put(path, (json.dumps(content, indent=1) + "\n").encode())

    # -- identity -----------------------------------------------------------------------------

    @property
    def identity_path(self) -> Path:
        """Where the job's identity is kept."""
        return self.private / "identity.json"

    def claim(self, identity: dict[str, Any], *, fresh: bool) -> None:
        """Make the folder this job's, or see that it already is.

        Raises OutputError where another job began here, naming what differs, and where a result
        would be written over something else. With `fresh`, what an earlier job left is removed.
        """
        known = self.check(identity, fresh=fresh)
        if known is not None and fresh:
            self._clear(known)
            known = None
        if known is None:
            self.put_json(self.identity_path, identity)
        shutil.rmtree(self.private / "staging", ignore_errors=True)
        try:
            (self.private / "stop").unlink(missing_ok=True)
        except OSError as error:
            raise _sentence(error, self.private / "stop") from error

    def check(self, identity: dict[str, Any], *, fresh: bool) -> dict[str, Any] | None:
        """What `claim` would refuse, without writing; the identity of the job that is here."""
        known = self.identity()
        if known is None:
            own = [*TABLES, "job.json", *(f"{name}.zarr" for name in identity["stacks"])]
            for path in (self.root / name for name in own):
                if path.exists():
                    raise OutputError(
                        f"{path}: is there already, and not by this job; give another --output"
                    )
        elif fresh:
            self._check_removal(known, identity)
        elif differing := _differences(known, json.loads(json.dumps(identity))):
            raise OutputError(
                f"{self.root}: holds a job that differs in {differing}; "
                "give another --output, or start over with --fresh"
            )
        return known

    def _check_removal(self, known: dict[str, Any], identity: dict[str, Any]) -> None:
        """Starting over must not remove an input, nor anything outside the folder."""
        inputs = [Path(stack["path"]) for stack in identity["stacks"].values()]
        for name in known["stacks"]:
            store = (self.root / f"{name}.zarr").resolve()
            if not store.is_relative_to(self.root.resolve()):
                raise OutputError(f"{self.identity_path}: names a stack outside of {self.root}")
            for path in inputs:
                if path.is_relative_to(store) or store.is_relative_to(path):
                    raise OutputError(f"{path}: is an input that --fresh would remove")

    def identity(self) -> dict[str, Any] | None:
        """The identity of the job that began here; None where none did."""
        try:
            content: dict[str, Any] = json.loads(self.identity_path.read_bytes())
            content["stacks"].keys()
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, AttributeError) as error:
            raise OutputError(
                f"{self.identity_path}: is damaged, so that nobody can tell what job this is; "
                "give another --output"
            ) from error
        return content

    def identity_hash(self) -> str:
        """Hash of the identity: what a worker compares before it commits."""
        try:
            return hashlib.sha256(self.identity_path.read_bytes()).hexdigest()
        except FileNotFoundError:
            return ""

    def _clear(self, known: dict[str, Any]) -> None:
        """Remove what a job made, and nothing else: the user's own files may lie beside it.

        What says that something is complete goes first, so that an end in the middle of this
        leaves a job to be done, never one that seems to be done.
        """
        try:
            (self.root / "job.json").unlink(missing_ok=True)
            for name in ("records", "objects", "timings"):
                _remove(self.private / name)
            for name in known["stacks"]:
                _remove(self.root / f"{name}.zarr")
            for name in TABLES:
                (self.root / name).unlink(missing_ok=True)
            self.identity_path.unlink()
        except OSError as error:
            raise _sentence(error, self.root) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder against other jobs; OutputError where one is running here."""
        path = self.private / "lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a")
        except OSError as error:
            raise _sentence(error, self.root) from error
        with file:
            if not _try_lock(file.fileno()):
                raise OutputError(f"{self.root}: another job is writing here; wait for its end")
            yield

    # -- stopping -----------------------------------------------------------------------------

    def ask_to_stop(self) -> None:
        """Have every worker finish the block it is at, and begin no other."""
        (self.private / "stop").touch()

    def stopping(self) -> bool:
        """Whether the job has been asked to stop."""
        return (self.private / "stop").exists()

    # -- records ------------------------------------------------------------------------------

    def record_path(self, stack: str, block: int) -> Path:
        """Path of the record that commits a block."""
        return self.private / "records" / stack / f"{block:06d}.json"

    def objects_path(self, stack: str, block: int) -> Path:
        """Path of a block's part of the objects table."""
        return self.private / "objects" / stack / f"{block:06d}.parquet"

    def timings_path(self, stack: str, block: int) -> Path:
        """Path of a block's timings."""
        return self.private / "timings" / stack / f"{block:06d}.json"

    def committed(self, stack: str) -> set[int]:
        """Numbers of the blocks of `stack` that have a record."""
        folder = self.private / "records" / stack
        if not folder.is_dir():
            return set()
        return {int(p.stem) for p in folder.iterdir() if p.suffix == ".json" and p.stem.isdecimal()}

    def record(self, stack: str, block: Block, shard: Path) -> dict[str, Any] | None:
        """The record of a block, None where it is not committed: it is done again then.

        A record that cannot be read, or whose shard or objects are gone, commits nothing.
        """
        try:
            content = json.loads(self.record_path(stack, block.index).read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(content, dict) or len(content.get("frames", ())) != block.n_frames:
            return None
        whole = shard.is_file() and self.objects_path(stack, block.index).is_file()
        return content if whole else None

    def timings(self, stack: str, block: Block) -> dict[str, Any]:
        """Timings of a block; empty where they were lost (they commit nothing)."""
        try:
            content: dict[str, Any] = json.loads(self.timings_path(stack, block.index).read_bytes())
        except (OSError, ValueError):
            return {}
        return content


def check_writable(root: Path) -> None:
    """OutputError where `root` cannot be a job's folder. Leaves nothing behind."""
    try:
        existing = root.resolve()
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a loop of links
        raise OutputError(f"{root}: cannot be a folder ({error})") from error
    if not existing.is_dir():
        raise OutputError(f"{root}: cannot be a folder, because {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{root}: cannot be written (no permission in {existing})")


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _make_folder(folder: Path) -> None:
    """Make a folder, each new one on the disk before anything is put below it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _flush_folder(folder.parent)


def flush_file(path: Path) -> None:
    """Have the system write a file's data to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return  # folders cannot be opened there; NTFS journals renames
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sentence(error: OSError, path: Path) -> OutputError:
    if error.errno in _FULL:
        return OutputError(
            f"{path}: the disk is full; make room and run the same command again to go on"
        )
    return OutputError(f"{path}: cannot be written ({error.strerror or error})")


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
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _try_lock(handle: int) -> bool:
    """Lock a file; False where another process holds it."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return False
        log.warning("this file system has no locks: see that no other job writes here")
    return True
