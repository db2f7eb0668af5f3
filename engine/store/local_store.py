"""Objects on a file system: staged, flushed to the disk, and renamed into place."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.errors import WriteError

_FULL = (errno.ENOSPC, errno.EDQUOT)
log = logging.getLogger("stackseg")


@dataclass(frozen=True)
class LocalStore:
    """Objects below a folder. See `engine.store.object_store.ObjectStore`."""

    root: Path
    staging: Path  # for objects on their way; on the same file system
    leases: Path  # folder of the files that are locked

    def _path(self, key: str) -> Path:
        return self.root / key

    def where(self, key: str = "") -> str:
        """See `ObjectStore`."""
        return str(self._path(key))

    # -- writing ------------------------------------------------------------------------------

    def put(self, key: str, data: bytes, *, durable: bool = True) -> None:
        """See `ObjectStore`."""
        with self._staged(key, durable=durable) as staged:
            staged.write_bytes(data)

    def writing(self, key: str) -> AbstractContextManager[Path]:
        """See `ObjectStore`."""
        return self._staged(key)

    @contextmanager
    def _staged(self, key: str, *, durable: bool = True) -> Iterator[Path]:
        path = self._path(key)
        staged = self.staging / uuid.uuid4().hex
        try:
            # Without parents: a job's folder that is gone with its disk is not made again.
            staged.parent.mkdir(exist_ok=True)
            _make_folder(path.parent, durable=durable)
            yield staged
            if durable:
                _flush_file(staged)
            staged.replace(path)
            if durable:
                _flush_folder(path.parent)
        except OSError as error:
            with suppress(OSError):  # a disk that is lost takes its staging with it
                staged.unlink(missing_ok=True)
            raise write_error(error, path) from error

    def delete(self, key: str, *, durable: bool = True) -> None:
        """See `ObjectStore`."""
        path = self._path(key)
        try:
            path.unlink()
            if durable:
                _flush_folder(path.parent)
        except FileNotFoundError:
            return  # nor need its folder be there: work/ is gone once a job is complete
        except OSError as error:
            raise write_error(error, path) from error

    def delete_all(self, prefix: str) -> None:
        """See `ObjectStore`."""
        path = self._path(prefix)
        try:
            if path.exists():
                shutil.rmtree(path, onerror=_unless_gone)
        except OSError as error:
            raise write_error(error, path) from error

    # -- reading ------------------------------------------------------------------------------

    def get(self, key: str) -> bytes:
        """See `ObjectStore`."""
        return self._path(key).read_bytes()

    def open(self, key: str) -> BinaryIO:
        """See `ObjectStore`."""
        return self._path(key).open("rb")

    def exists(self, key: str) -> bool:
        """See `ObjectStore`."""
        return self._path(key).is_file()

    def holds(self, prefix: str) -> bool:
        """See `ObjectStore`. Also a folder in which nothing is."""
        return self._path(prefix).exists()

    def list(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore`."""
        for path in _files(self._path(prefix)):
            yield path.relative_to(self.root).as_posix()

    def children(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore`."""
        folder = self._path(prefix)
        return (path.name for path in folder.iterdir()) if folder.is_dir() else iter(())

    def stamp(self, key: str) -> tuple[int, ...]:
        """See `ObjectStore`. Device and number of the file, its size and times."""
        with self.open(key) as file:  # which asks a file server what is there
            stat = os.fstat(file.fileno())
        return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns

    # -- leases -------------------------------------------------------------------------------

    @contextmanager
    def lease(self, name: str, *, shared: bool = False) -> Iterator[bool]:
        """See `ObjectStore`. The system lets go of it when this process ends."""
        path = self.leases / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")  # NFS wants to read what is locked for sharing
        except OSError as error:
            raise write_error(error, self.root) from error
        with file:
            yield _try_lock(file.fileno(), shared=shared)


def _files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        else:
            yield Path(entry.path)


def _make_folder(folder: Path, *, durable: bool) -> None:
    """Make a folder; if `durable`, each new one is on the disk before anything is put below it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent, durable=durable)
    folder.mkdir(exist_ok=True)
    if durable:
        _flush_folder(folder.parent)


def _unless_gone(function: object, path: object, error: tuple[type, BaseException, object]) -> None:
    """Of a tree that is being removed, what others have removed is no error."""
    if not isinstance(error[1], FileNotFoundError):
        raise error[1]


def _flush_file(path: Path) -> None:
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


def _try_lock(handle: int, *, shared: bool) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return shared  # such locks cannot be shared; array tasks there rely on their own
        return True
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return False
        log.warning("this file system has no locks: make sure that no other job writes here")
    return True


def write_error(error: OSError, path: Path) -> WriteError:
    """What went wrong at `path`, in one sentence that ends with running the same command again."""
    if error.errno in _FULL:
        return WriteError(f"{path}: the disk is full; make room and run the same command again")
    why = error.strerror or error
    return WriteError(
        f"{path}: cannot be written ({why}); mend that, and run the same command again"
    )
