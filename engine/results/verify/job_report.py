"""`job.json`, and what it has the checksums of: tables, `failures.json`, identity and records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow.parquet as pq

from engine.results.verify.groups import group_record
from engine.results.verify.problems import Problem
from engine.results.verify.stack import JobStack
from engine.store.folder import FAILURES, IDENTITY, REPORT, JobFolder
from engine.store.object_store import digest_of
from engine.store.records import decode
from engine.store.reports import JobReport
from engine.store.tables import ROWS

CHANGED = "has changed since the end of the job: its SHA-256 is not that in job.json"
FRAMES = "frames.parquet"


def read_report(folder: JobFolder) -> tuple[JobReport | None, str]:
    """`job.json`, None where it is absent or cannot be read, and what is wrong with it."""
    try:
        data = folder.own.get(REPORT)
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"cannot be read ({error.strerror or error})"
    report = decode(JobReport, data, folder.own.where(REPORT))
    if report is None:
        return None, "is not what a job writes at its end"
    damage = "has changed since the end of the job: its SHA-256 is not the one that it states"
    return report, "" if report.checksum() == report.sha256 else damage


def check_file(folder: JobFolder, key: str, report: JobReport) -> Iterator[Problem]:
    """The problem of an object of the job's own, if there is one."""
    kind = {FAILURES: "report", IDENTITY: "record"}.get(key, "table")
    try:
        if digest_of(folder.own, key) != report.files_sha256.get(key):
            yield Problem(kind, key, CHANGED)
    except OSError as error:
        yield Problem(kind, key, f"cannot be read ({error.strerror or error})")


def changed_frames(folder: JobFolder, stacks: Sequence[JobStack]) -> Iterator[Problem]:
    """Records whose frames are not those of the frames table: one for each such frame.

    For jobs whose records are not those of their end, which a hash over all of them shows.
    """
    rows = _rows(folder)
    for stack in stacks:
        for group in stack.groups():
            known = list(islice(rows, len(list(group.frames))))
            key, record, _ = group_record(stack, group)
            for frame, row in zip((record and record.frames) or (), known, strict=False):
                values = frame.row(stack.name)
                for name in row:
                    if values.get(name) != row[name]:
                        damage = f"{name} is {values.get(name)}, and {row[name]} in {FRAMES}"
                        place = stack.span((frame.t, frame.t + 1), (frame.z, frame.z + 1))
                        yield stack.problem("record", key, damage, place, group.index)
                        break


def _rows(folder: JobFolder) -> Iterator[dict[str, Any]]:
    with folder.own.open(FRAMES) as file:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=ROWS):
            yield from batch.to_pylist()
