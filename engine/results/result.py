"""A result as those who draw it or carry it elsewhere read it: stacks, labels, classes.

A result is a job's folder, one NAME.zarr in it, or a label image NAME.zarr/labels/MODEL. A
NAME.zarr that was moved away from its job, or is of a job of another version of stackseg, still
holds its labels, classes and pixel sizes; what the job's records know (where the pixels came from,
tables, frames set aside) is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import OutputError, StackError, UsageError
from engine.results.planes import Number, Planes, open_planes
from engine.stacks.zarr import ngff
from engine.stacks.zarr.metadata import read_node
from engine.store.folder import FAILURES, IDENTITY, REPORT, JobFolder, relabelling
from engine.store.identity import JobIdentity, StackIdentity
from engine.store.records import RecordVersionError
from engine.store.reports import JobReport

log = logging.getLogger("stackseg")


@dataclass(frozen=True)
class LabelClass:
    """A class of a class map."""

    value: int  # its number; 0 is background
    name: str
    rgb: tuple[int, int, int]


OBJECT = LabelClass(1, "object", (255, 255, 0))  # of a model that is not known


@dataclass(frozen=True)
class Job:
    """A complete job, as its folder has it."""

    folder: Path  # as the user wrote it, where that is possible
    identity: JobIdentity
    report: JobReport

    @property
    def labels(self) -> str:
        """Name of the label image that it made, in the store of each of its stacks."""
        return self.identity.label_image

    def maker_of(self, labels: str) -> Job | None:
        """The job that made a label image of this job's stores; None where none did.

        That is this job, or one that labelled its result again; UsageError where such a one is not
        complete.
        """
        if labels in self.identity.label_images:
            return self
        added = relabelling(self.folder, labels)
        if not added.is_dir():
            return None
        return _complete(added, "its relabelling is not complete; run the same command again")

    @cached_property
    def failed(self) -> Mapping[str, frozenset[Number]]:
        """Frames that were set aside, by stack: their labels are 0."""
        found: dict[str, set[Number]] = {}
        failures = JobFolder(self.folder).failures().frames
        if len(failures) != self.report.counts.failed:  # frames set aside would pass for empty ones
            raise OutputError(
                f"{self.folder / FAILURES}: is gone or damaged, and frames were set aside; run "
                "the same `stackseg segment` again to have it made"
            )
        for frame in failures:
            found.setdefault(frame.stack, set()).add((frame.t, frame.z))
        return {stack: frozenset(numbers) for stack, numbers in found.items()}

    @property
    def objects(self) -> LabelClass:
        """The class that a binary model finds."""
        spec = self.report.model.spec
        if not spec.is_binary:
            return OBJECT
        return LabelClass(1, spec.classes[1].name, rgb_of(spec.classes[1].color))

    @property
    def classes(self) -> Mapping[str, LabelClass]:
        """The classes of its model by name, without the background."""
        found = enumerate(self.report.model.spec.classes)
        return {c.name: LabelClass(n, c.name, rgb_of(c.color)) for n, c in found if n}


@dataclass(frozen=True)
class ResultStack:
    """The labels of one stack, and what is known of where they came from."""

    name: str
    store: Path  # NAME.zarr
    model: str  # name of the label image
    labels: Planes
    classes: tuple[LabelClass, ...]  # of a class map, background first; empty: instance ids
    objects: LabelClass = OBJECT  # what instances are
    # By name, what instances beside a class map are: the objects table has the class of each.
    object_classes: Mapping[str, LabelClass] = field(default_factory=dict)
    folder: Path | None = None  # of the job that made these labels, None where none is there
    failed: frozenset[Number] = frozenset()  # frames that it set aside: their labels are 0
    origin: StackIdentity | None = None  # None: the store was moved away from its job
    axes: str | None = None  # given by the user for opening the original, None: as its metadata say
    format: str = ""  # of the original, as `StackInfo.format`

    @cached_property
    def has_image(self) -> bool:
        """Whether the store keeps the raw pixels as well."""
        return "labels" not in _root_image(self.store).relative_to(self.store).parts

    @property
    def probability(self) -> Planes | None:
        """Probabilities, uint8 of 0..255, by class along C where there are several; or None.

        They are those that the network gave, whatever labels were made of them since.
        """
        where = self.store / "probability" / (own_labels(self.store) or self.model)
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
        Name of the label image, where a stack has several; None: the job's own.

    Raises UsageError or StackError, one sentence, where it is no result or not complete.
    """
    where = Path(path)
    if not where.is_dir():
        raise StackError(f"{where}: is no folder; give a job's folder or a NAME.zarr in it")
    if where.parent.name == "labels" and (where / "zarr.json").is_file():
        labels, where = where.name, where.parent.parent
    job = job_of(where)
    if job is None:
        wanted = labels or default_labels(where, _listed(where))
        return [_stack(where.name.removesuffix(".zarr"), where, wanted)]
    wanted = labels or job.labels
    maker = job.maker_of(wanted)
    formats = {one.name: one.format for one in job.report.inputs}
    found = []
    for name, origin in job.identity.stacks.items():
        store = JobFolder(job.folder).zarr(name)
        if where.resolve() in (job.folder.resolve(), store.resolve()):
            known = replace(
                _stack(name, store, wanted),
                objects=job.objects,
                object_classes=job.classes,
                origin=origin,
                axes=job.report.settings.axes,
                format=formats.get(name, ""),
            )
            if maker is not None:
                failed = maker.failed.get(name, frozenset())
                known = replace(known, folder=maker.folder, failed=failed)
            found.append(known)
    if not found:
        raise UsageError(f"{where}: is no stack of the job in {job.folder}; give {job.folder}")
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


def job_of(where: Path) -> Job | None:
    """The job that a result is, or lies in; None where there is none that can be read.

    Raises UsageError where it is not complete: frames that are still to be segmented would pass
    for empty ones; and where all that is given is the folder of a job of another version.
    """
    full = where.resolve()
    for folder in (full, *full.parents):
        own = JobFolder(folder).own
        if not own.exists(IDENTITY):
            continue
        shown = where if folder == full else folder
        try:
            return _complete(shown, "its job is not complete; run it to its end first")
        except RecordVersionError:
            if not own.exists(REPORT):
                raise
            if folder == full:
                raise UsageError(
                    f"{where}: its job is of another version of stackseg, whose records cannot be "
                    "read; give a NAME.zarr in it"
                ) from None
            log.warning("%s: is read without its job, which is of another version", where)
            return None
    return None


def own_labels(store: Path) -> str:
    """Name of the label image that a store was made with; "" of a Zarr that is no result."""
    try:
        return str(read_node(store).attributes["stackseg"]["model"])
    except (OSError, StackError, LookupError, TypeError):
        return ""


def default_labels(store: Path, names: Sequence[str]) -> str:
    """The label image of `names` that is meant where none is named: the store's own, or the one.

    Raises UsageError where that is not clear. Those that `stackseg relabel` added have to be
    asked for.
    """
    own = own_labels(store)
    chosen = [own] if own in names else names
    if len(chosen) != 1:
        listed = ", ".join(sorted(chosen)) or "none"
        raise UsageError(f"{store}: needs one label image, has {listed}; name {store}/labels/NAME")
    return chosen[0]


def classes_of(attributes: Mapping[str, Any], dtype: np.dtype[Any]) -> tuple[LabelClass, ...]:
    """The classes that a class map's OME attributes name and colour, background first; else none.

    Colours and properties alone are no evidence: viewers give them to single objects as well.
    """
    described = attributes.get("image-label") or {}
    try:
        names = {p.get("label-value"): p.get("name") for p in described.get("properties") or ()}
        colors = {c.get("label-value"): c.get("rgba") for c in described.get("colors") or ()}
        named = 0 in names and all(isinstance(name, str) for name in names.values())
        if not named or not names.keys() <= colors.keys() or dtype != np.uint8:
            return ()
        return tuple(LabelClass(v, str(names[v]), _rgb(colors[v][:3])) for v in sorted(names))
    except (AttributeError, TypeError, ValueError):  # not as the specification has it
        return ()


def rgb_of(color: str) -> tuple[int, int, int]:
    """Red, green and blue of "#rrggbb"."""
    return _rgb(bytes.fromhex(color[1:]))


def _rgb(values: Sequence[int]) -> tuple[int, int, int]:
    red, green, blue = values
    return red, green, blue


def _complete(folder: Path, otherwise: str) -> Job:
    job = JobFolder(folder)
    identity = job.identity()
    report = job.report()
    if identity is None or report is None:
        raise UsageError(f"{folder}: {otherwise}")
    return Job(folder, identity, report)


def _root_image(store: Path) -> Path:
    return ngff.image(str(store), read_node(store)).array


def _listed(store: Path) -> list[str]:
    """Names of the label images of a store; StackError where it holds none."""
    if not (store / "labels" / "zarr.json").is_file():
        raise StackError(f"{store}: holds no labels; give a job's folder or a NAME.zarr in it")
    return ngff.label_names(store / "labels") or []


def _stack(name: str, store: Path, labels: str) -> ResultStack:
    """What a store tells by itself."""
    names = _listed(store)
    if labels not in names:
        raise UsageError(f"--labels {labels}: {store} has {', '.join(names) or 'none'}")
    where = store / "labels" / labels
    planes = open_planes(where)
    return ResultStack(name, store, labels, planes, classes_of(read_node(where).ome, planes.dtype))
