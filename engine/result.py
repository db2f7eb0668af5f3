"""A result as those who draw it or carry it elsewhere read it: stacks, labels, classes.

A result is a job's folder, one NAME.zarr in it, or a label image NAME.zarr/labels/MODEL. A
NAME.zarr that was moved away from its job still tells its labels, classes and pixel sizes; what
the job's records know (where the pixels came from, tables, frames set aside) it has lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from engine.errors import FrameError, StackError, UsageError
from engine.records import PRIVATE, JobFolder
from engine.report import files as report
from engine.stacks import ngff
from engine.stacks.windows import PIXELS

Number = tuple[int, int]  # (t, z) of a frame, in the stack's own numbering


@dataclass(frozen=True)
class LabelClass:
    """A class of a class map."""

    value: int
    name: str
    rgb: tuple[int, int, int]


OBJECT = LabelClass(1, "object", (255, 255, 0))  # of a model that is not known


@dataclass(frozen=True)
class Planes:
    """The planes of an OME-Zarr multiscale image, all levels of it, by the stack's own numbers."""

    where: Path
    axes: str  # canonical order; C only where the image has channels
    levels: tuple[zarr.Array[Any], ...]  # the full size first
    first: Number  # (t, z) of the first plane
    pixel_size_um: Mapping[str, float]  # by axis; empty where it is not known
    time_step_s: float | None

    def size(self, axis: str, level: int = 0) -> int:
        """Length of an axis, 1 where there is none."""
        shape = self.levels[level].shape
        return int(shape[self.axes.index(axis)]) if axis in self.axes else 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return np.dtype(self.levels[0].dtype)

    @property
    def ts(self) -> range:
        """Time points."""
        return range(self.first[0], self.first[0] + self.size("T"))

    @property
    def zs(self) -> range:
        """Planes."""
        return range(self.first[1], self.first[1] + self.size("Z"))

    @property
    def numbers(self) -> Iterator[Number]:
        """(t, z) of every plane, in order."""
        return ((t, z) for t in self.ts for z in self.zs)

    def level_for(self, shape: tuple[int, int]) -> int:
        """The smallest level of at least `shape`, (Y, X): enough to be drawn at that size."""
        fitting = [
            n for n in range(len(self.levels))
            if self.size("Y", n) >= shape[0] and self.size("X", n) >= shape[1]
        ]  # fmt: skip
        return fitting[-1] if fitting else 0

    def read(
        self, t: int, z: int, rows: slice = slice(None), c: int = 0, level: int = 0
    ) -> NDArray[Any]:
        """Rows of a plane, (y, X); FrameError where they cannot be read."""
        at: dict[str, int | slice] = {"T": t - self.first[0], "Z": z - self.first[1], "C": c}
        at |= {"Y": rows, "X": slice(None)}
        try:
            return np.asarray(self.levels[level][tuple(at[axis] for axis in self.axes)])
        except Exception as error:  # zarr and its codecs raise what they like
            what = (str(error).splitlines() or [type(error).__name__])[0]
            raise FrameError(f"{self.where}: t={t} z={z} cannot be read ({what})") from error

    def bands(self, level: int = 0) -> Iterator[slice]:
        """Rows to be read together, whole chunks of about 4 million pixels."""
        array = self.levels[level]
        height, chunk = self.size("Y", level), array.chunks[self.axes.index("Y")]
        step = max(PIXELS // max(self.size("X", level) * chunk, 1), 1) * chunk
        return (slice(y, min(y + step, height)) for y in range(0, height, step))


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
        return [_stack(where.name.removesuffix(".zarr"), where, labels, None, {}, None, [], OBJECT)]
    ended = report.read(JobFolder(folder))
    if ended is None:
        raise UsageError(f"{folder}: its job is not complete; run it to its end first")
    axes = _settings(folder).get("axes")
    failures, objects = _failures(folder), _objects(ended)
    found = []
    for name, origin in identity["stacks"].items():
        store = folder / f"{name}.zarr"
        if where.resolve() in (folder.resolve(), store.resolve()):
            mine = [f for f in failures if f.get("stack") == name]
            found.append(_stack(name, store, labels, folder, origin, axes, mine, objects))
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


def open_planes(where: Path) -> Planes:
    """The OME-Zarr image at `where`; StackError where it is none."""
    attributes = _attributes(where)
    image = ngff.image(str(where), where, attributes)
    scales = attributes["multiscales"][0]
    try:
        levels = tuple(
            zarr.open_array(where / str(d["path"]), mode="r") for d in scales["datasets"]
        )
    except Exception as error:
        raise StackError(f"{where}: its arrays cannot be opened ({error})") from error
    axes = "".join(name.upper() for name in image.names)
    if any(level.ndim != len(axes) for level in levels) or not axes.endswith("YX"):
        raise StackError(f"{where}: has the axes {axes}, which do not fit its arrays")
    first = first_plane(attributes)
    return Planes(where, axes, levels, first, image.pixel_size_um, image.time_step_s)


def first_plane(attributes: Mapping[str, Any]) -> Number:
    """(t, z) of an image's first plane: the translation over the step between two planes."""
    scales = attributes["multiscales"][0]
    names = [axis["name"] for axis in scales["axes"]]
    told = {t["type"]: t[t["type"]] for t in scales["datasets"][0]["coordinateTransformations"]}
    shift, step = told.get("translation", [0] * len(names)), told.get("scale", [1] * len(names))
    at = {n: round(s / (size or 1)) for n, s, size in zip(names, shift, step, strict=True)}
    return at.get("t", 0), at.get("z", 0)


def root_attributes(store: Path) -> dict[str, Any]:
    """OME attributes of a NAME.zarr."""
    return _attributes(store)


def _attributes(where: Path) -> dict[str, Any]:
    try:
        content = json.loads((where / "zarr.json").read_bytes())
        return ngff.ome(content["attributes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StackError(f"{where}: is no OME-Zarr image that stackseg made") from error


def _root_image(store: Path) -> Path:
    return ngff.image(str(store), store, _attributes(store)).array


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
) -> ResultStack:
    model = _label_image(store, labels)
    where = store / "labels" / model
    return ResultStack(
        name=name,
        store=store,
        model=model,
        labels=open_planes(where),
        classes=_classes(_attributes(where)),
        objects=objects,
        folder=folder,
        origin=origin,
        axes=axes,
        failed=frozenset((f["t"], f["z"]) for f in failures),
    )


def _label_image(store: Path, wanted: str | None) -> str:
    """The label image that is meant; that of the objects where there is a class map too."""
    if not (store / "labels" / "zarr.json").is_file():
        raise StackError(f"{store}: holds no labels; give a job's folder or a NAME.zarr in it")
    names = [str(name) for name in _attributes(store / "labels").get("labels", [])]
    if wanted is not None:
        if wanted not in names:
            raise UsageError(f"--labels {wanted}: {store} has {', '.join(names) or 'none'}")
        return wanted
    chosen = [n for n in names if n.endswith("-objects")] or names
    if len(chosen) != 1:
        listed = ", ".join(chosen) or "none"
        raise UsageError(f"{store}: needs one label image, has {listed}; choose with --labels")
    return chosen[0]


def _classes(attributes: Mapping[str, Any]) -> tuple[LabelClass, ...]:
    told = attributes.get("image-label", {})
    rgb = {c["label-value"]: _rgb(c["rgba"][:3]) for c in told.get("colors", [])}
    named = {p["label-value"]: str(p["name"]) for p in told.get("properties", []) if "name" in p}
    return tuple(LabelClass(v, name, rgb.get(v, (255, 255, 255))) for v, name in named.items())
