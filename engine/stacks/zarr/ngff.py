"""The one reader of OME-Zarr metadata, 0.1 to 0.5: arrays, axes, scales, channels, labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import StackError, plural
from engine.stacks.axes import UNKNOWN
from engine.stacks.base import CANONICAL
from engine.stacks.guard import brief, some
from engine.stacks.lengths import micrometres, seconds
from engine.stacks.zarr.metadata import Node, read_node

_MAX_NAME = 1024  # of a path within a store
_NAMED = 3  # members of a collection that a sentence names
_LETTERS = {axis.lower(): axis for axis in CANONICAL}
_LETTERS |= {"time": "T", "channel": "C", "channels": "C", "ch": "C"}


@dataclass(frozen=True)
class Image:
    """One image: where its pixels lie and what is known of them."""

    array: Path  # at full size
    names: list[str]  # of the dimensions, in the array's order; may be empty
    levels: tuple[Path, ...] = ()  # the arrays of a multiscale image, as listed
    pixel_size_um: dict[str, float] = field(default_factory=dict)
    time_step_s: float | None = None
    channel_names: tuple[str, ...] = ()  # "" for one without
    unused: tuple[str, ...] = ()  # what the group holds beside it, see `StackInfo.unused`
    transforms: Any = ()  # coordinateTransformations of the full size, not yet looked at

    def letters(self, ndim: int) -> str:
        """One letter per dimension; nameless dimensions but the last two are unknown."""
        if len(self.names) != ndim or not any(self.names):
            return (UNKNOWN * (ndim - 2) + "YX") if ndim >= 2 else UNKNOWN * ndim
        return "".join(_LETTERS.get(name.lower(), UNKNOWN) for name in self.names)

    def first_frame(self) -> tuple[int, int]:
        """Numbers of the first frame along T and Z: the translation over the step between two.

        Raises StackError where the translation is not valid: frames would get wrong numbers.
        """
        letters = self.letters(len(self.names))
        try:
            by_type = {one["type"]: one for one in self.transforms}
            shift = by_type.get("translation", {}).get("translation", [0] * len(letters))
            step = by_type.get("scale", {}).get("scale", [1] * len(letters))
            at = dict(zip(letters, zip(shift, step, strict=True), strict=True))
            t, z = (round(s / (size or 1)) for s, size in (at.get(a, (0, 1)) for a in "TZ"))
            return t, z
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise _invalid(str(self.array.parent), error) from error


def label_names(group: Path) -> list[str] | None:
    """Names of the label images that a group lists; None where it has no list.

    Raises StackError where its metadata are damaged.
    """
    names = read_node(group).ome.get("labels")
    return [str(name) for name in names] if isinstance(names, list) else None


def refuse_collections(path: str, node: Node) -> None:
    """StackError for plates, wells and label collections, naming what to give instead."""
    where, attributes = node.where, node.ome
    try:
        if isinstance(attributes.get("plate"), dict):
            wells = _members(where, attributes["plate"].get("wells", []))
            fields = _some([str(Path(w) / "0") for w in wells])
            count = plural(len(wells), "well")
            raise StackError(f"{path}: is a plate of {count}; give its fields: {fields}")
        if isinstance(attributes.get("well"), dict):
            images = _members(where, attributes["well"].get("images", []))
            if len(images) != 1:
                raise StackError(f"{path}: is a well; give its fields: {_some(images)}")
            raise StackError(f"{path}: is a well; give its field: {images[0]}")
        if isinstance(attributes.get("labels"), list) and "multiscales" not in attributes:
            names = _members(where, [{"path": name} for name in attributes["labels"]])
            raise StackError(f"{path}: is a collection of labels; give one: {_some(names)}")
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


def _some(names: list[str]) -> str:
    return some(names, limit=_NAMED) or "it names none"


def image(path: str, node: Node) -> Image:
    """The first multiscale image of a group; StackError where the metadata is not valid."""
    where, attributes = node.where, node.ome
    try:
        scales = attributes["multiscales"][0]
        dataset = _largest(where, scales["datasets"])
        names, units = _axes(scales.get("axes"))
        sizes, step = _calibration(names, units, _scale(scales, dataset, len(names)))
        unused = (*_others(attributes["multiscales"]), *_neighbours(node))
        if "image-label" in attributes or str(dataset["path"]).startswith("labels/"):
            unused = ("is a label image: its values are ids, not intensities", *unused)
        return Image(
            array=_inside(where, str(dataset["path"])),
            names=names,
            levels=tuple(where / path for path in _paths(scales)),
            pixel_size_um=sizes,
            time_step_s=step,
            channel_names=_channel_names(attributes),
            unused=unused,
            transforms=dataset.get("coordinateTransformations", ()),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError) as error:
        raise _invalid(path, error) from error


def _paths(scales: Any) -> list[str]:
    """Paths of an image's arrays, as far as they can be read."""
    datasets = scales.get("datasets") if isinstance(scales, dict) else None
    return [str(d.get("path")) for d in datasets or () if isinstance(d, dict)]


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
        shape = read_node(_inside(where, str(dataset["path"]))).document["shape"]
        return math.prod(shape) if all(type(n) is int for n in shape) else 0
    except (StackError, KeyError, TypeError, ValueError, AttributeError, OSError):
        return 0


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
        entry = axis if isinstance(axis, dict) else {"name": axis}  # a name alone: 0.3
        name = {"channel": "c", "time": "t"}.get(str(entry.get("type")), entry.get("name"))
        names.append(name if isinstance(name, str) else "")
        units.append(entry.get("unit"))
    return names, units


def _scale(scales: dict[str, Any], dataset: dict[str, Any], ndim: int) -> list[float | None]:
    """Scale of level 0 by dimension: that of the dataset times that of the whole image.

    None where there is none, or where one of the two is no number.
    """
    found = []
    for entry in (dataset, scales):
        transforms = entry.get("coordinateTransformations")
        for transform in transforms if isinstance(transforms, list) else ():
            is_scale = isinstance(transform, dict) and transform.get("type") == "scale"
            values = transform.get("scale") if is_scale else None
            if isinstance(values, list) and len(values) == ndim:
                found.append(values)
    if not found:
        return [None] * ndim
    return [_product(values) for values in zip(*found, strict=True)]


def _product(values: Sequence[Any]) -> float | None:
    try:
        return math.prod(map(float, values))
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
        brief((one.get("name") if isinstance(one, dict) else None) or f"number {n}")
        for n, one in enumerate(scales[1:], 1)
    ]
    if names:
        yield f"its metadata describes further images, which are not used: {_some(names)}"


def _neighbours(node: Node) -> Iterator[str]:
    """Arrays and images in the image's group that are none of its levels, in a sentence."""
    levels = [path for scales in node.ome["multiscales"] for path in _paths(scales)]
    own = {"labels", *(path.strip("/").partition("/")[0] for path in levels)}
    children = (child for child in node.children if child.name not in own)
    found = [brief(child.name) for child in children if _may_be_image(child)]
    if found:
        yield f"its group holds further arrays or images, which are not used: {_some(found)}"


def _may_be_image(folder: Path) -> bool:
    try:
        return read_node(folder).is_image
    except (StackError, OSError):
        return False  # what cannot be read costs the image beside it nothing
