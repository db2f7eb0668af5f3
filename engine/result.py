"""A result as those who draw it or carry it elsewhere read it: stacks, labels, classes.

A result is a job's folder, one NAME.zarr in it, or a label image NAME.zarr/labels/MODEL. A
NAME.zarr that was moved away from its job still tells its labels, classes and pixel sizes; what
the job's records know (where the pixels came from, tables, frames set aside) it has lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.errors import StackError, UsageError
from engine.planes import Number, Planes, ome_attributes, open_planes
from engine.records import PRIVATE, JobFolder
from engine.report import files as report
from engine.stacks import ngff


@dataclass(frozen=True)
class LabelClass:
    """A class of a class map."""

    value: int
    name: str
    rgb: tuple[int, int, int]


OBJECT = LabelClass(1, "object", (255, 255, 0))  # of a model that is not known


@dataclass(frozen=True)
class ResultStack:
    """The labels of one stack, and what is known of where they came from."""

    name: str
    store: Path  # NAME.zarr
    model: str  # name of the label image
    labels: Planes
    classes: tuple[LabelClass, ...]  # of a class map, background first; empty: instance ids
    objects: LabelClass  # what instances are
    folder: Path | None  # the job's, None where the store was moved away from it
    origin: Mapping[str, Any]  # what the job's identity says of the stack; empty without one
    axes: str | None  # given by the user for opening the original, None: as its metadata say
    failed: frozenset[Number]  # frames that were set aside: their labels are 0
    measured: bool  # whether the job's tables speak of these labels, and of no later ones

    @cached_property
    def has_image(self) -> bool:
        """Whether the store keeps the raw pixels as well."""
        return "labels" not in _root_image(self.store).relative_to(self.store).parts

    @property
    def probability(self) -> Planes | None:
        """Probabilities, uint8 of 0..255, by class along C where there are several; or None."""
        where = self.store / "probability" / self.model
        return open_planes(where) if where.is_dir() else None

    @property
    def file_name(self) -> str:
        """The name as one part of a path."""
        return self.name.replace("/", "__")


def open_result(path: Path | str, labels: str | None = None) -> list[ResultStack]:
    """The stacks of a result, in their order.

    Parameters
    ----------
    path
        A job's folder, a NAME.zarr, or NAME.zarr/labels/MODEL.
    labels
        Name of the label image, where a stack has several.

    Raises UsageError or StackError, one sentence, where it is no result or not complete.
    """
    where = Path(path)
    if not where.is_dir():
        raise StackError(f"{where}: is no folder; give a job's folder or a NAME.zarr in it")
    if where.parent.name == "labels" and (where / "zarr.json").is_file():
        labels, where = where.name, where.parent.parent
    folder, identity = _job_of(where)
    if folder is None:
        return [
            _stack(where.name.removesuffix(".zarr"), where, labels, None, {}, None, [], OBJECT, "")
        ]
    ended = report.read(JobFolder(folder))
    if ended is None:
        raise UsageError(f"{folder}: its job is not complete; run it to its end first")
    axes = _settings(folder).get("axes")
    failures, objects = _failures(folder), _objects(ended)
    own = str(identity.get("labels", "")).removeprefix("labels/")
    found = []
    for name, origin in identity["stacks"].items():
        store = folder / f"{name}.zarr"
        if where.resolve() in (folder.resolve(), store.resolve()):
            mine = [f for f in failures if f.get("stack") == name]
            found.append(_stack(name, store, labels, folder, origin, axes, mine, objects, own))
    if not found:
        raise UsageError(f"{where}: is no stack of the job in {folder}; give {folder}")
    return found


def choose_stack(stacks: list[ResultStack], name: str | None, path: Path | str) -> ResultStack:
    """The one stack that is meant; UsageError with the names of all where that is not clear."""
    listed = ", ".join(stack.name for stack in stacks[:8]) + (", ..." if len(stacks) > 8 else "")
    if name is None and len(stacks) > 1:
        raise UsageError(f"{path}: has {len(stacks)} stacks; choose with --stack: {listed}")
    chosen = [stack for stack in stacks if name in (None, stack.name)]
    if not chosen:
        raise UsageError(f"--stack {name}: {path} has no such stack; it has {listed}")
    return chosen[0]


def _root_image(store: Path) -> Path:
    return ngff.image(str(store), store, ome_attributes(store)).array


def _job_of(where: Path) -> tuple[Path | None, dict[str, Any]]:
    """The job's folder around a result, and its identity; (None, {}) where there is none."""
    full = where.resolve()
    for folder in (full, *full.parents):
        if (folder / PRIVATE / "identity.json").is_file():
            # As the user wrote it, where that is possible.
            shown = where if folder == full else folder
            return shown, JobFolder(folder).identity() or {"stacks": {}}
    return None, {}


def _settings(folder: Path) -> dict[str, Any]:
    job = JobFolder(folder)
    return job.read_json(job.settings_path) or {}


def _failures(folder: Path) -> list[dict[str, Any]]:
    told = JobFolder(folder).read_json(folder / "failures.json") or {}
    return list(told.get("frames", []))


def _objects(ended: Mapping[str, Any]) -> LabelClass:
    """The class that a binary model finds."""
    told = ended["model"].get("spec", {}).get("classes", [])
    if len(told) != 2:
        return OBJECT
    return LabelClass(1, str(told[1]["name"]), rgb_of(told[1]["color"]))


def rgb_of(color: str) -> tuple[int, int, int]:
    """Red, green and blue of "#rrggbb"."""
    return _rgb(bytes.fromhex(color[1:]))


def _rgb(values: Sequence[int]) -> tuple[int, int, int]:
    red, green, blue = values
    return red, green, blue


def _stack(
    name: str,
    store: Path,
    labels: str | None,
    folder: Path | None,
    origin: Mapping[str, Any],
    axes: str | None,
    failures: list[dict[str, Any]],
    objects: LabelClass,
    own: str,
) -> ResultStack:
    model = _label_image(store, labels, own)
    where = store / "labels" / model
    return ResultStack(
        name=name,
        store=store,
        model=model,
        labels=open_planes(where),
        classes=_classes(ome_attributes(where)),
        objects=objects,
        folder=folder,
        origin=origin,
        axes=axes,
        failed=frozenset((f["t"], f["z"]) for f in failures),
        measured=folder is not None and model.removesuffix("-objects") == own,
    )


def _label_image(store: Path, wanted: str | None, own: str) -> str:
    """The label image that is meant; by default the job's `own`, or that of its objects."""
    if not (store / "labels" / "zarr.json").is_file():
        raise StackError(f"{store}: holds no labels; give a job's folder or a NAME.zarr in it")
    names = [str(name) for name in ome_attributes(store / "labels").get("labels", [])]
    if wanted is not None:
        if wanted not in names:
            raise UsageError(f"--labels {wanted}: {store} has {', '.join(names) or 'none'}")
        return wanted
    chosen = [n for n in names if n == f"{own}-objects"] or [n for n in names if n == own] or names
    if len(chosen) != 1:
        listed = ", ".join(chosen) or "none"
        raise UsageError(f"{store}: needs one label image, has {listed}; choose with --labels")
    return chosen[0]


def _classes(attributes: Mapping[str, Any]) -> tuple[LabelClass, ...]:
    told = attributes.get("image-label", {})
    rgb = {c["label-value"]: _rgb(c["rgba"][:3]) for c in told.get("colors", [])}
    named = {p["label-value"]: str(p["name"]) for p in told.get("properties", []) if "name" in p}
    return tuple(LabelClass(v, name, rgb.get(v, (255, 255, 255))) for v, name in named.items())
