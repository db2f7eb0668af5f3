"""Which label images a result has: the job's own, and those that relabellings have added.

The list in NAME.zarr/labels/zarr.json follows from the jobs that are complete and can be made again
from them: a label image is named once it is whole, and no longer once it is begun anew.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.claim import listing
from engine.records import JobFolder, added_jobs
from engine.report import files as report
from engine.store import LABEL_LIST, label_list


def label_names(result: JobFolder, stack: str) -> list[str]:
    """Names of a stack's label images: the job's own, then those of complete relabellings."""
    own = _name(result, stack)
    added = [JobFolder(root) for root in added_jobs(result.root)]
    names = [_name(one, stack) for one in added if report.read(one) is not None]
    return [name for name in dict.fromkeys([own, *names]) if name]


def list_labels(result: JobFolder, stacks: Iterable[str], job: JobFolder) -> None:
    """Bring the lists of a result's label images up to date, one process at a time.

    They are staged by `job`, whose next run sweeps away what a kill leaves there.
    """
    with listing(result):
        for stack in stacks:
            path = result.store(stack) / LABEL_LIST
            wanted = label_list(label_names(result, stack))
            if path.exists() and path.read_bytes() != wanted:
                job.put(path, wanted)


def _name(job: JobFolder, stack: str) -> str:
    """The label image that a job makes of a stack; empty where it makes none."""
    identity = job.identity() or {}
    if stack not in identity.get("stacks", {}):
        return ""
    return str(identity["labels"]).removeprefix("labels/")
