"""The job's folder: what is committed, and how a second run knows where to go on.

    DIR/.stackseg/
      identity.json             what the job is: model, inputs, settings that change results
      lock                      held while a job runs; the system lets go of it if the job dies
      staging/                  objects on their way; whatever is found here is swept away
      stop, stop-3-of-8         while it is there, no block is begun, on whatever machine
      records/NAME/000012.json  one immutable record per block: the commit point
      stitch groups/NAME/000003.json the same for what is stitched: frames cut into regions
      levels/1/NAME/000012.json the same for the levels of images and labels
      objects/NAME/000012.parquet, timings/NAME/segment/000012.json
      attempts/NAME/segment/000012.json  there while a block is being done: its process died
      work/                     what stitching needs on its way; gone when the job is complete

Every object is written in staging, flushed to the disk, and renamed into place; its folder is
flushed after that. A block's record is put last, so that a record means: all of it is there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from engine.errors import JobStopped, OutputError
from engine.geometry.layout import StitchGroup
from engine.stacks.names import given_path

PRIVATE = ".stackseg"
RELABELLED = "relabelled"  # folder of the jobs that label a result anew
STOP = "stop"  # ends every run of the job; "stop-3-of-8" that shard
_FULL = (errno.ENOSPC, errno.EDQUOT)
_hashed: dict[Path, tuple[tuple[int, ...], str]] = {}  # identities by path: stamp, and hash


class JobFolder:
    """A job's output folder, `DIR`."""

    def __init__(self, root: Path, stores: Path | None = None) -> None:
        """`stores` is the folder of the Zarr stores, where that is not the job's own."""
        self.root = root
        self.private = root / PRIVATE
        self.stores = stores or root

    def store(self, stack: str) -> Path:
        """A stack's result."""
        return self.stores / f"{stack}.zarr"

    # -- objects ------------------------------------------------------------------------------

    def put(self, path: Path, data: bytes) -> None:
        """Write an object: all of it, or nothing, and on the disk when this returns."""
        with self.staged(path) as staged:
            staged.write_bytes(data)

    @contextmanager
    def staged(self, path: Path) -> Iterator[Path]:
        """A place to write a file of any size; afterwards it is put to `path`, as by `put`."""
        staged = self.private / "staging" / uuid.uuid4().hex
        try:
            # Without parents: of a job's folder that is gone with its disk nothing is made anew.
            staged.parent.mkdir(exist_ok=True)
            _make_folder(path.parent)
            yield staged
            _flush_file(staged)
            staged.replace(path)
            _flush_folder(path.parent)
        except OSError as error:
            with suppress(OSError):  # a disk that is lost takes its staging with it
                staged.unlink(missing_ok=True)
            raise sentence(error, path) from error

    def put_json(self, path: Path, content: Any) -> None:
        """`put` of `content` as JSON, keys in the order given."""
        self.put(path, (json.dumps(content, indent=1) + "\n").encode())

    def remove(self, path: Path) -> None:
        """Take a record back, so that its block is to be done; on the disk when this returns."""
        try:
            path.unlink()
            _flush_folder(path.parent)
        except FileNotFoundError:
            return  # nor need its folder be there: work/ is gone once a job is complete
        except OSError as error:
            raise sentence(error, path) from error

    # -- identity -----------------------------------------------------------------------------

    @property
    def identity_path(self) -> Path:
        """Where the job's identity is kept."""
        return self.private / "identity.json"

    @property
    def settings_path(self) -> Path:
        """Where the settings lie with which the job began."""
        return self.private / "settings.json"

    def keep_settings(self, settings: dict[str, Any]) -> None:
        """Keep the settings with which a job began: what completes it later needs them."""
        if not self.settings_path.exists():
            inputs = [_absolute(text) for text in settings["inputs"]]
            model = Path(settings["model"])
            found = str(model.resolve()) if model.is_file() else settings["model"]
            self.put_json(self.settings_path, {**settings, "inputs": inputs, "model": found})

    def identity(self) -> dict[str, Any] | None:
        """The identity of the job that began here; None where none did."""
        try:
            content: dict[str, Any] = json.loads(self.identity_path.read_bytes())
            if not all(isinstance(stack, dict) for stack in content["stacks"].values()):
                raise ValueError("a stack is none")
        except FileNotFoundError:
            return None
        except (
            OSError,
            ValueError,
            LookupError,
            AttributeError,
            TypeError,
            RecursionError,
        ) as error:
            raise OutputError(
                f"{self.identity_path}: is damaged, so that nobody can tell what job this is; "
                "give another --output"
            ) from error
        return content

    def identity_hash(self) -> str:
        """Hash of the identity, which workers compare before they commit; "" where it is gone.

        It may be megabytes, one entry for each input, and is asked for at each block: a file that
        is the one hashed before, by number, size and times, is not read again.
        """
        try:
            with self.identity_path.open("rb") as file:  # which asks a file server what is there
                stat = os.fstat(file.fileno())
                stamp = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
                known, digest = _hashed.get(self.identity_path, (None, ""))
                if known != stamp:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    _hashed.clear()  # a process has one job, or few
                    _hashed[self.identity_path] = stamp, digest
                return digest
        except OSError:
            return ""

    # -- stopping -----------------------------------------------------------------------------

    def ask_to_stop(self, stop: str) -> None:
        """Have every worker of a run finish the block it is at, and begin no other."""
        (self.private / stop).touch()

    def forget_stop(self, stop: str) -> None:
        """A run begins or has ended: what it was asked is no longer asked."""
        try:
            for name in {stop, STOP}:
                (self.private / name).unlink(missing_ok=True)
        except OSError as error:
            raise sentence(error, self.private / stop) from error

    def stopping(self, stop: str) -> bool:
        """Whether a run has been asked to stop."""
        return (self.private / stop).exists() or (self.private / STOP).exists()

    # -- places -------------------------------------------------------------------------------

    def place(self, kind: str, stack: str, index: int, suffix: str = ".json") -> Path:
        """Where one object of a kind lies: "records", "objects", "work/parts", ..."""
        return self.private / kind / stack / f"{index:06d}{suffix}"

    def read_json(self, path: Path) -> dict[str, Any] | None:
        """The content of a record; None where there is none, or none that can be read."""
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None

    def stitch_record(self, stack: str, stitch_group: StitchGroup) -> dict[str, Any] | None:
        """The record of a stitched stitch group, None where it is not committed."""
        content = self.read_json(self.place("stitched", stack, stitch_group.index))
        whole = self.place("objects", stack, stitch_group.index, ".parquet").is_file()
        n_frames = len(list(stitch_group.frames))
        if content is None or not whole or len(content.get("frames", ())) != n_frames:
            return None
        return content

    def committed(self, stack: str) -> set[int]:
        """Numbers of the blocks of `stack` that have a record."""
        folder = self.private / "records" / stack
        if not folder.is_dir():
            return set()
        return {int(p.stem) for p in folder.iterdir() if p.suffix == ".json" and p.stem.isdecimal()}

    def take_back(self, paths: Iterable[Path], why: object) -> NoReturn:
        """What was needed is damaged: it goes, so that it is made again; JobStopped."""
        paths = list(paths)
        for path in paths:
            self.remove(path)
        raise JobStopped(
            f"{paths[0]}: is gone or damaged ({why}); run the same command again to have it made"
        )

    def forget_work(self) -> None:
        """Remove what was only on the way, once every block is committed."""
        # Of workers and shards that died while the job went on without them: nobody's now.
        for name in ("staging", "attempts"):
            shutil.rmtree(self.private / name, ignore_errors=True)
        try:
            remove_folder(self.private / "work")
        except OSError as error:
            raise sentence(error, self.private / "work") from error


def added_jobs(root: Path) -> list[Path]:
    """Folders of the jobs that labelled a result anew."""
    found = (root / RELABELLED).glob(f"*/{PRIVATE}/identity.json")
    return sorted(path.parents[1] for path in found)


def read_checked(path: Path, sha256: object) -> bytes:
    """A file whose checksum is on record; ValueError where it is another, OSError where gone."""
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError("its SHA-256 differs")
    return data


def _absolute(text: str) -> str:
    """An input as it can be found from any folder, under its name; a list keeps its @."""
    at, path = ("@", text[1:]) if text.startswith("@") else ("", text)
    return at + given_path(path)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)


def _make_folder(folder: Path) -> None:
    """Make a folder, each new one on the disk before anything is put below it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _flush_folder(folder.parent)


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


def sentence(error: OSError, path: Path) -> OutputError:
    """What went wrong at `path`, in one sentence."""
    if error.errno in _FULL:
        return OutputError(
            f"{path}: the disk is full; make room and run the same command again to go on"
        )
    return OutputError(f"{path}: cannot be written ({error.strerror or error})")
