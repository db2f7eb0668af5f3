"""Which label images a result has: the job's own, and those that relabellings have added.

The list in NAME.zarr/labels/zarr.json follows from the jobs that are complete, and can be written
again from them: a label image is named once it is whole, and no longer once it is begun again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from engine.store.claim import listing
from engine.store.committed import store_of
from engine.store.folder import JobFolder, added_jobs
from engine.store.ome_zarr import LABEL_LIST, label_list


@dataclass(frozen=True)
class _Made:
    """A job on a result's stores, and the label images that it makes of each of its stacks."""

    labels: tuple[str, ...]
    stacks: Iterable[str]
    is_named: bool  # the job's own always, those of relabellings once they are complete


def label_names(result: JobFolder) -> dict[str, list[str]]:
    """Names of each stack's label images: the job's own, then those of complete relabellings."""
    return _names(_made_on(result))


def list_labels(result: JobFolder, stacks: Iterable[str], job: JobFolder) -> None:
    """Bring the lists of a result's label images up to date, one process at a time.

    What others than these jobs have listed stays. Lists are staged by `job`, whose next run sweeps
    away what a kill leaves there.
    """
    with listing(result):
        made = _made_on(result)
        names, ours = _names(made), {label for one in made for label in one.labels}
        for stack in stacks:
            key = f"{store_of(stack)}/{LABEL_LIST}"
            listed = _listed(result, key)
            if listed is None:  # it is gone or damaged: the job makes it again
                continue
            wanted = [*names.get(stack, ()), *(name for name in listed if name not in ours)]
            if wanted != listed:
                job.results.put(key, label_list(wanted))


def _made_on(result: JobFolder) -> list[_Made]:
    """The job itself, then the relabellings of its result."""
    made = []
    for job in (result, *map(JobFolder, added_jobs(result.root))):
        if (identity := job.identity()) is not None:
            is_named = job is result or job.report() is not None
            made.append(_Made(identity.label_images, identity.stacks, is_named))
    return made


def _names(made: Iterable[_Made]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for one in made:
        for stack in one.stacks if one.is_named else ():
            names.setdefault(stack, []).extend(one.labels)
    return names


def _listed(result: JobFolder, key: str) -> list[str] | None:
    try:
        content = json.loads(result.results.get(key))
        return [str(name) for name in content["attributes"]["ome"]["labels"]]
    except (OSError, ValueError, LookupError, TypeError):
        return None
