"""What OME-Zarr attributes say: which array, its axes, its scale, its channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import StackError
from engine.stacks.guard import brief

_MAX_NAME = 1024  # of a path within a store
_NAMED = 3  # members of a collection that a sentence names

_UM = {
    "angstrom": 1e-4,
    "picometer": 1e-6,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "micron": 1.0,
    "um": 1.0,
    "µm": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
    "inch": 25_400.0,
}
_SECONDS = {
    "nanosecond": 1e-9,
    "microsecond": 1e-6,
    "millisecond": 1e-3,
    "second": 1.0,
    "s": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86_400.0,
}


@dataclass(frozen=True)
class Image:
    """One image: where its full-size pixels lie and what is known of them."""

    array: Path
    names: list[str]  # of the dimensions, in the array's order; may be empty
    pixel_size_um: dict[str, float]
    time_step_s: float | None
    channel_names: tuple[str, ...]


def ome(attributes: dict[str, Any]) -> dict[str, Any]:
    """The OME part of a group's attributes: under "ome" since 0.5, at the top before."""
    inner = attributes.get("ome")
    return inner if isinstance(inner, dict) else attributes


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
    """Level 0 of the first multiscale image; StackError where the metadata is not valid."""
    try:
        scales = attributes["multiscales"][0]
        dataset = scales["datasets"][0]
        array = _inside(where, str(dataset["path"]))
        names, units = _axes(scales.get("axes"))
        scale = _scale(scales, dataset, len(names))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError) as error:
        raise _invalid(path, error) from error
    sizes, step = _calibration(names, units, scale)
    return Image(array, names, sizes, step, _channel_names(attributes))


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


def _axes(axes: Any) -> tuple[list[str], list[str | None]]:
    """Names and units by dimension; images before 0.3 name none and are always TCZYX."""
    if axes is None:
        return list("tczyx"), [None] * 5
    names: list[str] = []
    units: list[str | None] = []
    for axis in axes:
        if isinstance(axis, str):  # 0.3
            names.append(axis)
            units.append(None)
            continue
        kind = axis.get("type")
        names.append({"channel": "c", "time": "t"}.get(kind, str(axis["name"])))
        units.append(axis.get("unit"))
    return names, units


def _scale(scales: dict[str, Any], dataset: dict[str, Any], ndim: int) -> list[float] | None:
    """Scale of level 0: that of the dataset times that of the whole image."""
    total: list[float] | None = None
    for transforms in (dataset, scales):
        for transform in transforms.get("coordinateTransformations") or []:
            values = transform.get("scale") if transform.get("type") == "scale" else None
            if isinstance(values, list) and len(values) == ndim:
                total = [a * float(b) for a, b in zip(total or [1.0] * ndim, values, strict=True)]
    return total


def _calibration(
    names: list[str], units: list[str | None], scale: list[float] | None
) -> tuple[dict[str, float], float | None]:
    """Pixel sizes in um and time step in s, where the unit says what the scale means."""
    sizes: dict[str, float] = {}
    step = None
    for name, unit, value in zip(names, units, scale or [], strict=False):
        if unit is None or not 0 < value < 1e12:
            continue
        if name in ("z", "y", "x") and unit in _UM:
            sizes[name.upper()] = value * _UM[unit]
        elif name == "t" and unit in _SECONDS:
            step = value * _SECONDS[unit]
    return sizes, step


def _channel_names(attributes: dict[str, Any]) -> tuple[str, ...]:
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return ()
    names = tuple(str(c.get("label") or "") if isinstance(c, dict) else "" for c in channels)
    return names if any(names) else ()
