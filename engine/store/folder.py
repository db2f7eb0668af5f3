"""A job's folder: what lies where in it, and how a second run knows where to resume.

    DIR/.stackseg/
      identity.json             what the job is: model, inputs, settings that change results
      lock                      held while a job runs; the system lets go of it if the job dies
      staging/                  objects on their way; whatever is found here is swept away
      stop, stop-3-of-8         while it is there, no block is begun, on whatever machine
      records/NAME/000012.json  one immutable record per block: the commit point
      stitched/NAME/000003.json the same for stitch groups: frames cut into regions
      levels/1/NAME/000012.json the same for the levels of images and labels
      objects/NAME/000012.parquet, timings/NAME/segment/000012.json
      attempts/NAME/segment/000012.json  there while a block is being done: its process died
      work/                     what stitching needs on its way; gone when the job is complete

A block's record is put last, so that a record means: all of it is there. The types of records are
in `engine.store.records`; how objects are put is in `engine.store.object_store`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from engine.errors import JobStopped, OutputError
from engine.plan.settings import JobSettings
from engine.stacks.inputs import given_path
from engine.store.identity import Holdings, JobIdentity, SettingsRecord
from engine.store.local_store import LocalStore
from engine.store.object_store import ObjectStore
from engine.store.records import AnyRecord, Record, RecordVersionError, decode, encode
from engine.store.reports import Failures, JobReport

PRIVATE = ".stackseg"
RELABELLED = "relabelled"  # folder of the jobs that label a result again
STOP = "stop"  # ends every run of the job; "stop-3-of-8" that array task
IDENTITY = f"{PRIVATE}/identity.json"
SETTINGS = f"{PRIVATE}/settings.json"
STAGING = f"{PRIVATE}/staging"
REPORT = "job.json"
FAILURES = "failures.json"
TABLES = (
    "frames.parquet",
    "frames.csv",
    "objects.parquet",
    "volumes.parquet",
    "volumes.csv",
    "timings.parquet",
    FAILURES,
)
_hashed: dict[str, tuple[tuple[int, ...], str]] = {}  # identities by place: stamp, and hash


def stores_of(root: Path, results: Path) -> tuple[ObjectStore, ObjectStore]:
    """The stores of a job's own objects and of its results: here, by what kind of place it is."""
    private = root / PRIVATE
    staging, leases = root / STAGING, private
    return LocalStore(root, staging, leases), LocalStore(results, staging, leases)


def key_of(kind: str, stack: str, index: int, suffix: str = ".json") -> str:
    """Key of one object of a kind: "records", "objects", "work/parts", ..."""
    return f"{PRIVATE}/{kind}/{stack}/{index:06d}{suffix}"


class JobFolder:
    """A job's output folder, `DIR`."""

    def __init__(self, root: Path, results: Path | None = None) -> None:
        """`results` is the folder of the Zarr stores, where that is not the job's own."""
        self.root = root
        self.is_added = results is not None and results != root  # to the result of another job
        self._results = results or root
        self.own, self.results = stores_of(root, self._results)

    def zarr(self, stack: str) -> Path:
        """A stack's result, for those that open it by its path."""
        return self._results / f"{stack}.zarr"

    def name_of(self, key: str) -> str:
        """An object of the results as job.json names it: relative to the job's own folder."""
        return Path(os.path.relpath(self._results / key, self.root)).as_posix()

    # -- records ------------------------------------------------------------------------------

    def put_record(self, key: str, record: Record, *, durable: bool = True) -> None:
        """Put a record."""
        self.own.put(key, encode(record), durable=durable)

    def record(self, kind: type[AnyRecord], key: str) -> AnyRecord | None:
        """The record at `key`; None where there is none, or a damaged one.

        RecordVersionError where another version of stackseg wrote it.
        """
        try:
            data = self.own.get(key)
        except OSError:
            return None
        return decode(kind, data, self.own.where(key))

    def numbers(self, kind: str, stack: str) -> list[int]:
        """Numbers of the records of a kind, see `key_of`, in order."""
        names = self.own.children(f"{PRIVATE}/{kind}/{stack}")
        stems = (name.removesuffix(".json") for name in names if name.endswith(".json"))
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def discard(self, keys: Iterable[str], why: object) -> NoReturn:
        """Delete what was needed and is damaged, so that it is made again; JobStopped."""
        keys = list(keys)
        for key in keys:
            self.own.delete(key)
        raise JobStopped(
            f"{self.own.where(keys[0])}: is gone or damaged ({why}); run the same command again to "
            "have it made"
        )

    # -- identity, settings and report --------------------------------------------------------

    def identity(self) -> JobIdentity | None:
        """The identity of the job that began here; None where none did.

        OutputError where it is damaged, RecordVersionError where another version began.
        """
        if (data := self._identity()) is None:
            return None
        try:
            found = decode(JobIdentity, data, self.own.where(IDENTITY))
        except RecordVersionError:
            self.holdings()  # or it is damaged
            raise
        if found is None:
            raise self._damaged()
        return found

    def holdings(self) -> Holdings | None:
        """What a job of whatever version holds; OutputError where that is damaged."""
        data = self._identity()
        try:
            return None if data is None else Holdings.model_validate(json.loads(data))
        except (ValueError, RecursionError) as error:
            raise self._damaged() from error

    def _identity(self) -> bytes | None:
        try:
            return self.own.get(IDENTITY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._damaged() from error

    def _damaged(self) -> OutputError:
        return OutputError(
            f"{self.own.where(IDENTITY)}: is damaged, so that nobody can tell what job this is; "
            "give another --output"
        )

    def keep_settings(self, settings: JobSettings) -> None:
        """Keep the settings with which a job began: what completes it later needs them."""
        if self.settings() is None:
            model = Path(settings.model)
            absolute = {
                "inputs": tuple(map(_absolute, settings.inputs)),
                "model": str(model.resolve()) if model.is_file() else settings.model,
            }
            kept = SettingsRecord(settings=settings.model_copy(update=absolute))
            self.put_record(SETTINGS, kept)

    def settings(self) -> JobSettings | None:
        """The settings with which the job began; None where they are not there."""
        found = self.record(SettingsRecord, SETTINGS)
        return found.settings if found else None

    def report(self) -> JobReport | None:
        """`job.json` of a complete job; None where the job has not come to its end.

        One that is damaged counts as none, and is written again from the records.
        """
        return self.record(JobReport, REPORT)

    def failures(self) -> Failures:
        """The frames that were set aside; none where there is no telling."""
        return self.record(Failures, FAILURES) or Failures()

    def identity_hash(self) -> str:
        """Hash of the identity, which workers compare before they commit; "" where it is gone.

        It may be megabytes, one entry for each input, and is asked for at each block: an object
        that is the one hashed before, by its stamp, is not read again.
        """
        where = self.own.where(IDENTITY)
        try:
            stamp = self.own.stamp(IDENTITY)
            known, digest = _hashed.get(where, (None, ""))
            if known != stamp:
                digest = hashlib.sha256(self.own.get(IDENTITY)).hexdigest()
                if self.own.stamp(IDENTITY) == stamp:  # else another was put in between
                    _hashed.clear()  # a process has one job, or few
                    _hashed[where] = stamp, digest
            return digest
        except OSError:
            return ""

    # -- stopping -----------------------------------------------------------------------------

    def ask_to_stop(self, stop: str) -> None:
        """Have every worker of a run finish the block it is at, and begin no other."""
        self.own.put(f"{PRIVATE}/{stop}", b"", durable=False)

    def forget_stop(self, stop: str) -> None:
        """A run begins or has ended: what it was asked is no longer asked."""
        for name in {stop, STOP}:
            self.own.delete(f"{PRIVATE}/{name}", durable=False)

    def stopping(self, stop: str) -> bool:
        """Whether a run has been asked to stop."""
        return any(self.own.exists(f"{PRIVATE}/{name}") for name in {stop, STOP})

    # -- the end ------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Remove what processes that died have left on its way: nobody's now."""
        with suppress(OutputError):
            self.own.delete_all(STAGING)

    def forget_work(self) -> None:
        """Remove what was only on the way, once every block is committed."""
        self.sweep()
        # Of workers and array tasks that died while the job went on without them.
        with suppress(OutputError):
            self.own.delete_all(f"{PRIVATE}/attempts")
        self.own.delete_all(f"{PRIVATE}/work")


def relabelling(root: Path, name: str) -> Path:
    """Folder of the job that added the labels NAME to the result of the one in `root`."""
    return root / RELABELLED / name


def added_jobs(root: Path) -> list[Path]:
    """Folders of the jobs that labelled a result again."""
    own = JobFolder(root).own
    names = sorted(own.children(RELABELLED))
    return [relabelling(root, n) for n in names if own.exists(f"{RELABELLED}/{n}/{IDENTITY}")]


def _absolute(text: str) -> str:
    """An input as it can be found from any folder, under its name; a list keeps its @."""
    at, path = ("@", text[1:]) if text.startswith("@") else ("", text)
    return at + given_path(path)
