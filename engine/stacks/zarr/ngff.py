"""What OME-Zarr attributes say: which array, its axes, its scale, its channels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import StackError
from engine.stacks.guard import brief
from engine.stacks.lengths import micrometres, seconds
from engine.stacks.zarr.metadata import child_folders, metadata

_MAX_NAME = 1024  # of a path within a store
_NAMED = 3  # members of a collection that a sentence names
_MAX_SHOWN = 60  # characters of a name in a sentence


@dataclass(frozen=True)
class Image:
    """One image: where its full-size pixels lie and what is known of them."""

    array: Path
    names: list[str]  # of the dimensions, in the array's order; may be empty
    pixel_size_um: dict[str, float]
    time_step_s: float | None
    channel_names: tuple[str, ...]
    unused: tuple[str, ...] = ()  # what the group holds beside it, see `StackInfo.unused`


def ome(attributes: dict[str, Any]) -> dict[str, Any]:
    """The OME part of a group's attributes: under "ome" since 0.5, at the top before."""
    inner = attributes.get("ome")
    return inner if isinstance(inner, dict) else attributes


def is_image(meta: dict[str, Any]) -> bool:
    """Whether metadata are those of an array or of a multiscale image."""
    return meta["node"] == "array" or "multiscales" in ome(meta["attributes"])


def refuse_collections(path: str, where: Path, attributes: dict[str, Any]) -> None:
    """StackError for plates, wells and label collections, naming what to give instead."""
    try:
        if isinstance(attributes.get("plate"), dict):
            wells = _members(where, attributes["plate"].get("wells", []))
            fields = _example([str(Path(w) / "0") for w in wells])
            raise StackError(f"{path}: is a plate of {len(wells)} wells; give its fields: {fields}")
        if isinstance(attributes.get("well"), dict):
            images = _members(where, attributes["well"].get("images", []))
            if len(images) != 1:
                raise StackError(f"{path}: is a well; give its fields: {_example(images)}")
            raise StackError(f"{path}: is a well; give its field: {images[0]}")
        if isinstance(attributes.get("labels"), list) and "multiscales" not in attributes:
            names = _members(where, [{"path": name} for name in attributes["labels"]])
            raise StackError(f"{path}: is a collection of labels; give one: {_example(names)}")
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise _invalid(path, error) from error


def _members(where: Path, members: list[dict[str, Any]]) -> list[str]:
    """Paths of a collection's members; only those that will be named are looked at."""
    inside = [str(_inside(where, str(m["path"]))) for m in members[:_NAMED]]
    return inside + [str(m["path"]) for m in members[_NAMED:]]


def _invalid(path: str, error: Exception) -> StackError:
    return StackError(
        f"{path}: its OME-Zarr metadata is not valid ({type(error).__name__}: {brief(error)}); "
        "write the image again or give one of its arrays"
    )


def _example(paths: list[str]) -> str:
    return ", ".join(paths[:_NAMED]) + (", ..." if len(paths) > _NAMED else "") or "it names none"


def image(path: str, where: Path, attributes: dict[str, Any]) -> Image:
    """The first multiscale image at full size; StackError where the metadata is not valid."""
    try:
        scales = attributes["multiscales"][0]
        dataset = _largest(where, scales["datasets"])
        array = _inside(where, str(dataset["path"]))
        names, units = _axes(scales.get("axes"))
        scale = _scale(scales, dataset, len(names))
        unused = (*_others(attributes["multiscales"]), *_beside(where, attributes))
        if "image-label" in attributes or str(dataset["path"]).startswith("labels/"):
            unused = ("is a label image: its values are ids, not intensities", *unused)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError) as error:
        raise _invalid(path, error) from error
    sizes, step = _calibration(names, units, scale)
    return Image(array, names, sizes, step, _channel_names(attributes), unused)


def _largest(where: Path, datasets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The level with the most pixels: the first, but for writers that list the smallest first.

    One that cannot be read never makes room for another.
    """
    first = datasets[0]
    sizes = [_pixels(where, dataset) for dataset in datasets]
    return first if not sizes[0] else datasets[sizes.index(max(sizes))]


def _pixels(where: Path, dataset: dict[str, Any]) -> int:
    """How many pixels a level has; 0 where its metadata cannot be read."""
    try:
        return math.prod(metadata(_inside(where, str(dataset["path"])))["shape"])
    except (StackError, KeyError, TypeError, ValueError, AttributeError, OSError):
        return 0


def first_indices(axes: Sequence[str], dataset: Mapping[str, Any]) -> dict[str, int]:
    """Number of the first frame along each axis: the translation over the step between two."""
    told = {one["type"]: one for one in dataset.get("coordinateTransformations", ())}
    shift = told.get("translation", {}).get("translation", [0] * len(axes))
    step = told.get("scale", {}).get("scale", [1] * len(axes))
    return {a: round(s / (size or 1)) for a, s, size in zip(axes, shift, step, strict=True)}


def _inside(where: Path, name: str) -> Path:
    """A path below the store; one that leads out of it is a trap."""
    array = where / name
    if not name.isprintable() or len(name) > _MAX_NAME:
        raise ValueError(f"{name!r} is no path")
    if not array.resolve().is_relative_to(where.resolve()):
        raise ValueError(f"path {name!r} leads out of the store")
    return array


def _axes(axes: Any) -> tuple[list[str], list[object]]:
    """Names and units by dimension; images before 0.3 name none and are always TCZYX.

    What is no name is "", a dimension that is not known; the others keep theirs.
    """
    if axes is None:
        return list("tczyx"), [None] * 5
    names: list[str] = []
    units: list[object] = []
    for axis in axes:
        told = axis if isinstance(axis, dict) else {"name": axis}  # a name alone: 0.3
        name = {"channel": "c", "time": "t"}.get(str(told.get("type")), told.get("name"))
        names.append(name if isinstance(name, str) else "")
        units.append(told.get("unit"))
    return names, units


def _scale(scales: dict[str, Any], dataset: dict[str, Any], ndim: int) -> list[float | None]:
    """Scale of level 0 by dimension: that of the dataset times that of the whole image.

    None where there is none, or where one of the two is no number.
    """
    total: list[float | None] = [1.0] * ndim
    is_told = False
    for transforms in (dataset, scales):
        told = transforms.get("coordinateTransformations")
        for transform in told if isinstance(told, list) else ():
            is_scale = isinstance(transform, dict) and transform.get("type") == "scale"
            values = transform.get("scale") if is_scale else None
            if isinstance(values, list) and len(values) == ndim:
                is_told = True
                total = [_times(a, b) for a, b in zip(total, values, strict=True)]
    return total if is_told else [None] * ndim


def _times(total: float | None, value: object) -> float | None:
    try:
        return None if total is None else total * float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None


def _calibration(
    names: list[str], units: list[object], scale: list[float | None]
) -> tuple[dict[str, float], float | None]:
    """Pixel sizes in um and time step in s, each where its unit says what its scale means."""
    sizes: dict[str, float] = {}
    step = None
    for name, unit, value in zip((n.lower() for n in names), units, scale, strict=True):
        if name in ("z", "y", "x"):
            if (size := micrometres(value, unit)) is not None:
                sizes[name.upper()] = size
        elif name == "t":
            step = seconds(value, unit)
    return sizes, step


def _channel_names(attributes: dict[str, Any]) -> tuple[str, ...]:
    """Labels of the channels, "" for one without; empty where none has any."""
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return ()
    labels = [c.get("label") if isinstance(c, dict) else None for c in channels]
    names = tuple(
        str(label) if isinstance(label, str | int | float) and not isinstance(label, bool) else ""
        for label in labels
    )
    return names if any(names) else ()


def _others(scales: Any) -> Iterator[str]:
    """What the metadata hold beside the first image, in a sentence."""
    names = [
        str(one.get("name") or f"number {n}") if isinstance(one, dict) else f"number {n}"
        for n, one in enumerate(scales[1:], 1)
    ]
    if names:
        listed = _example([_printable(name) for name in names])
        yield f"its metadata describes further images, which are not used: {listed}"


def _beside(where: Path, attributes: dict[str, Any]) -> Iterator[str]:
    """Arrays and images in the image's group that are none of its levels, in a sentence."""
    own = {
        str(dataset.get("path")).strip("/").partition("/")[0]
        for scales in attributes["multiscales"]
        for dataset in (scales.get("datasets") or [] if isinstance(scales, dict) else [])
        if isinstance(dataset, dict)
    }
    found = [
        child.name
        for child in child_folders(where)
        if child.name not in own | {"labels"} and _may_be_image(child)
    ]
    if found:
        listed = _example([_printable(name) for name in found])
        yield f"its group holds further arrays or images, which are not used: {listed}"


def _may_be_image(folder: Path) -> bool:
    try:
        return is_image(metadata(folder))
    except (StackError, OSError):
        return False  # what cannot be read costs the image beside it nothing


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:_MAX_SHOWN])
