"""Which label images a result has: the job's own, and those that relabellings have added.

The list in NAME.zarr/labels/zarr.json follows from the jobs that are complete, and can be written
again from them: a label image is named once it is whole, and no longer once it is begun again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from engine.store.claim import listing
from engine.store.committed import store_of
from engine.store.folder import JobFolder, added_jobs
from engine.store.ome_zarr import LABEL_LIST, label_list


def label_names(result: JobFolder) -> dict[str, list[str]]:
    """Names of each stack's label images: the job's own, then those of complete relabellings."""
    names: dict[str, list[str]] = {}
    for job in (result, *_added(result)):
        if job is result or job.report() is not None:
            label, stacks = _label_of(job)
            for stack in stacks:
                names.setdefault(stack, []).append(label)
    return names


def list_labels(result: JobFolder, stacks: Iterable[str], job: JobFolder) -> None:
    """Bring the lists of a result's label images up to date, one process at a time.

    What others than these jobs have listed stays. Lists are staged by `job`, whose next run sweeps
    away what a kill leaves there.
    """
    with listing(result):
        names = label_names(result)
        ours = {_label_of(one)[0] for one in (result, *_added(result))}
        for stack in stacks:
            key = f"{store_of(stack)}/{LABEL_LIST}"
            listed = _listed(result, key)
            if listed is None:  # it is gone or damaged: the job makes it again
                continue
            wanted = [*names.get(stack, ()), *(name for name in listed if name not in ours)]
            if wanted != listed:
                job.results.put(key, label_list(wanted))


def _added(result: JobFolder) -> list[JobFolder]:
    return [JobFolder(root) for root in added_jobs(result.root)]


def _label_of(job: JobFolder) -> tuple[str, Iterable[str]]:
    """The label image that a job makes, and of which stacks."""
    identity = job.identity()
    return (identity.label_image, identity.stacks) if identity else ("", ())


def _listed(result: JobFolder, key: str) -> list[str] | None:
    try:
        content = json.loads(result.results.get(key))
        return [str(name) for name in content["attributes"]["ome"]["labels"]]
    except (OSError, ValueError, LookupError, TypeError):
        return None
