"""The metadata of a result: what the job wrote can be made again from what its folder tells."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from engine import __version__
from engine.geometry.arrays import IMAGE, ResultArray, level_layout
from engine.model.spec import ModelSpec
from engine.results.verify.problems import Problem
from engine.results.verify.view import StackView
from engine.stacks.base import StackInfo
from engine.store.ome_zarr import LABEL_LIST, array_metadata, metadata_files, metadata_keys


def check_metadata(
    view: StackView, identity: dict[str, Any], ended: dict[str, Any] | None, names: Sequence[str]
) -> Iterator[Problem]:
    """Problems of a stack's zarr.json files.

    `ended` is job.json, where there is one; `names` are those of all whole label images.
    """
    expected = _expected(view, identity, ended)
    added = view.folder.stores != view.folder.root
    for key in metadata_keys(view.arrays, added=added):
        path = view.store / key

        def tell(what: str, path: Any = path) -> Problem:
            return Problem("metadata", view.relative(path), what, f"stack {view.name}", view.name)

        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            yield tell("the metadata are gone")
            continue
        except (OSError, ValueError) as error:
            yield tell(f"the metadata cannot be read ({error})")
            continue
        wanted = json.loads(expected[key]) if key in expected and key != LABEL_LIST else None
        if wanted is not None and (differing := _difference(_plain(found), _plain(wanted))):
            yield tell(f"the metadata are not as written: {differing}")
        elif wanted is None and (what := _malformed(view, key, found, names)):
            yield tell(what)


def _expected(
    view: StackView, identity: dict[str, Any], ended: dict[str, Any] | None
) -> dict[str, bytes]:
    """What this version writes, as far as it can be known: at least the array's own."""
    array = {
        f"{one.path(level)}/zarr.json": array_metadata(one.shape(level_layout(view.layout, level)))
        for one in view.arrays
        for level in range(one.levels)
    }
    if ended is None or identity.get("stackseg") != __version__:
        return array
    try:
        spec = ModelSpec.model_validate(ended["model"]["spec"])
        told = next(one for one in ended["inputs"] if one["name"] == view.name)
        info = StackInfo(
            path=told["path"], format=told["format"], axes=told["axes"],
            shape=tuple(told["shape"]), dtype=told["dtype"],
            pixel_size_um=told["pixel_size_um"], time_step_s=told["time_step_s"],
        )  # fmt: skip
        made_with = {
            "version": identity["stackseg"],
            "model": spec.name,
            "model_sha256": identity["model"],
            "runtime": identity["runtime"],
            **identity["stacks"][view.name]["postprocessing"],
            "channels": identity["stacks"][view.name]["channel"],
        }
        name = view.name.rpartition("/")[2]
        return metadata_files(name, info, view.layout, view.arrays, spec, made_with)
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration):
        return array  # job.json is damaged; that is a problem of its own


def _malformed(view: StackView, key: str, found: Any, names: Sequence[str]) -> str:
    """What is wrong with a group's metadata of which only the outline is known."""
    array = _array_of(view, key)
    try:
        if (found["zarr_format"], found["node_type"]) != (3, "group"):
            return "the metadata are not those of a Zarr group"
        if key == "probability/zarr.json":
            return ""
        ome = found["attributes"]["ome"]
        if key == LABEL_LIST:
            lost = [name for name in names if name not in ome["labels"]]
            return f"the metadata do not name the labels {', '.join(lost)}" if lost else ""
        paths = [one["path"] for one in ome["multiscales"][0]["datasets"]]
        prefix = f"{array.group}/".lstrip("/") if key == "zarr.json" else ""
        wanted = [f"{prefix}{level}" for level in range(array.levels)]
        axes = [axis["name"] for axis in ome["multiscales"][0]["axes"]]
    except (LookupError, TypeError):
        return "the metadata are not those of an NGFF image"
    if paths != wanted or axes != [axis.lower() for axis in array.shape(view.layout).axes]:
        return f"the metadata point at {paths} with axes {axes}, and the arrays are {wanted}"
    if key == f"{view.labels.group}/zarr.json" and "image-label" not in ome:
        return "the metadata do not say that these are labels"
    return ""


def _array_of(view: StackView, key: str) -> ResultArray:
    """The array that a group's metadata are about."""
    if key == "zarr.json":
        return next((a for a in view.arrays if a.kind == IMAGE), view.labels)
    return next((a for a in view.arrays if f"{a.group}/zarr.json" == key), view.labels)


def _plain(content: Any) -> Any:
    """Metadata without what Zarr may leave out or write, and that then means the same."""
    if not isinstance(content, dict):
        return content
    empty: dict[str, Any] = {"storage_transformers": [], "attributes": {}}
    return {k: v for k, v in content.items() if k not in empty or v != empty[k]}


def _difference(found: Any, wanted: Any, at: str = "") -> str:
    """The first thing that differs, in words; empty where nothing does."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in [*wanted, *(k for k in found if k not in wanted)]:
            if key not in found:
                return f"{at}{key} is gone"
            if key not in wanted:
                return f"{at}{key} was not there"
            if differing := _difference(found[key], wanted[key], f"{at}{key}."):
                return differing
        return ""
    if found == wanted and type(found) is type(wanted):
        return ""
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        parts = zip(found, wanted, strict=True)
        each = (_difference(a, b, f"{at}{i}.") for i, (a, b) in enumerate(parts))
        return next((text for text in each if text), "")
    return f"{at.rstrip('.')} is {json.dumps(found)} instead of {json.dumps(wanted)}"
