"""The metadata of a result: zarr.json of its groups and arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from engine.geometry.arrays import IMAGE, level_layout
from engine.results.verify.job_report import CHANGED
from engine.results.verify.problems import Problem
from engine.results.verify.stack import JobStack
from engine.store.committed import store_of
from engine.store.ome_zarr import LABEL_LIST, array_metadata, metadata_keys
from engine.store.reports import JobReport


def check_metadata(
    stack: JobStack, report: JobReport | None, label_names: Sequence[str]
) -> Iterator[Problem]:
    """Problems of a stack's zarr.json files.

    `report` is None of a job that is not complete: nothing has their checksums then.
    `label_names` are those of all whole label images.
    """
    arrays = {
        f"{one.path(level)}/zarr.json": array_metadata(one.shape(level_layout(stack.layout, level)))
        for one in stack.arrays
        for level in range(one.levels)
    }
    for key in metadata_keys(stack.arrays, added=stack.folder.is_added):
        whole = f"{store_of(stack.name)}/{key}"
        path = stack.folder.name_of(whole)
        try:
            data = stack.folder.results.get(whole)
            content = json.loads(data)
        except FileNotFoundError:
            damage = "the metadata are gone"
        except (OSError, ValueError) as error:
            damage = f"the metadata cannot be read ({error})"
        else:
            if key in arrays:
                damage = _array_damage(content, json.loads(arrays[key]))
            else:
                damage = _group_damage(stack, key, content, label_names)
            # The list of labels grows with each label image that is added: it has no checksum.
            if report is not None and not damage and key != LABEL_LIST:
                is_same = hashlib.sha256(data).hexdigest() == report.files_sha256.get(path)
                damage = "" if is_same else CHANGED
        if damage:
            yield stack.problem("metadata", path, damage)


def _array_damage(found: Any, wanted: dict[str, Any]) -> str:
    """What of an array's metadata is not what the layout asks for."""
    if not isinstance(found, dict):
        return "the metadata are not those of a Zarr array"
    # What Zarr may leave out or write, and that then means the same.
    empty: dict[str, Any] = {"storage_transformers": [], "attributes": {}}
    found, wanted = {**empty, **found}, {**empty, **wanted}
    for key in {**wanted, **found}:
        if found.get(key) != wanted.get(key):
            return f"the metadata are not as written: {key} is {json.dumps(found.get(key))}"
    return ""


def _group_damage(stack: JobStack, key: str, content: Any, label_names: Sequence[str]) -> str:
    """What is wrong with the outline of a group's metadata."""
    try:
        if (content["zarr_format"], content["node_type"]) != (3, "group"):
            return "the metadata are not those of a Zarr group"
        if key == "probability/zarr.json":
            return ""
        ome = content["attributes"]["ome"]
        if key == LABEL_LIST:
            lost = [name for name in label_names if name not in ome["labels"]]
            return f"the metadata do not name the labels {', '.join(lost)}" if lost else ""
        image = ome["multiscales"][0]
        paths = [one["path"] for one in image["datasets"]]
        axes = [axis["name"].upper() for axis in image["axes"]]
    except (LookupError, TypeError, AttributeError):
        return "the metadata are not those of an NGFF image"
    of_root = key == "zarr.json"  # the raw stack where it is kept, else the labels
    array = next(
        (
            a
            for a in stack.arrays
            if (a.kind == IMAGE if of_root else key == f"{a.group}/zarr.json")
        ),
        stack.labels,
    )
    wanted = [array.path(level) if of_root else str(level) for level in range(array.levels)]
    if paths != wanted or "".join(axes) != array.shape(stack.layout).axes:
        return f"the metadata point at {paths} with axes {axes}, and the arrays are {wanted}"
    if array.is_labels and not of_root and "image-label" not in ome:
        return "the metadata do not say that these are labels"
    return ""
