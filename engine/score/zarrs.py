"""Label images in Zarr: arrays, OME-Zarr images, label images and results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import zarr

from engine.errors import StackError, UsageError
from engine.score.classes import LabelClass
from engine.score.frames import LabelFrames, array_frames
from engine.stacks.ngff import first_indices

USUAL_AXES = {2: "YX", 3: "TYX", 4: "TZYX", 5: "TCZYX"}  # of arrays that name none
ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr array or group."""
    return any((path / name).is_file() for name in ZARR_FILES)


def open_zarr(path: Path, class_map: bool = False) -> LabelFrames:
    """Open a Zarr array, image, label image or result; of a result with both, its objects."""
    node = zarr.open(path, mode="r")
    if isinstance(node, zarr.Array):
        return array_frames(path, node, _named_axes(node) or USUAL_AXES.get(node.ndim, ""))
    ome = _ome(node)
    if "labels" in node and isinstance(node["labels"], zarr.Group):
        own = _made_with(node).get("model", "")
        return open_zarr(path / "labels" / _label_image(path, node["labels"], class_map, own))
    if "labels" in ome:
        return open_zarr(path / _label_image(path, node, class_map))
    if "multiscales" not in ome:
        raise StackError(f"{path}: is a Zarr group without labels and without an image")
    image = ome["multiscales"][0]
    dataset = image["datasets"][0]
    axes = "".join(a["name"] for a in image["axes"])
    array = node[dataset["path"]]
    if not isinstance(array, zarr.Array):
        raise StackError(f"{path}: its level {dataset['path']} is not an array")
    first = {axis.upper(): n for axis, n in first_indices(axes, dataset).items()}
    frames = array_frames(path, array, axes, first)
    return replace(frames, classes=_classes(ome, array))


def _named_axes(array: zarr.Array[Any]) -> str:
    """The axes that an array names itself (Zarr 3, or xarray's attribute), or nothing."""
    names: Any = getattr(array.metadata, "dimension_names", None)
    names = names or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    axes = "".join(str(name)[:1] for name in names).upper()
    return axes if set(axes) <= set("TCZYX") else ""


def _ome(group: zarr.Group) -> Mapping[str, Any]:
    """NGFF metadata, of version 0.5 (under "ome") or before."""
    attributes: Mapping[str, Any] = group.attrs.asdict()
    ome: Mapping[str, Any] = attributes.get("ome", attributes)
    return ome


def _made_with(group: zarr.Group) -> Mapping[str, Any]:
    """What a result says of the job that made it; nothing of a Zarr that is none."""
    told: Any = group.attrs.asdict().get("stackseg")
    return told if isinstance(told, dict) else {}


def _label_image(path: Path, labels: zarr.Group, class_map: bool, own: str = "") -> str:
    """The one label image; of several a result's `own`, or that of its objects or classes."""
    names = sorted(_ome(labels).get("labels") or labels.group_keys())
    # Those that `stackseg relabel` added have to be asked for.
    names = [n for n in names if n in (own, f"{own}-objects")] or names
    objects = [n for n in names if n.endswith("-objects")]
    names = ([n for n in names if n not in objects] if class_map else objects) or names
    if len(names) != 1:
        listed = ", ".join(names) or "none"
        raise UsageError(f"{path}: needs one label image, has {listed}; name PATH/labels/NAME")
    return str(names[0])


def _classes(ome: Mapping[str, Any], array: zarr.Array[Any]) -> tuple[LabelClass, ...]:
    """The classes that a class map's metadata name and colour, background too; else none.

    Colours and properties alone do not tell: viewers give them to single objects as well.
    """
    label = ome.get("image-label") or {}
    names = {p.get("label-value"): p.get("name") for p in label.get("properties") or ()}
    colors = {c.get("label-value"): c.get("rgba") for c in label.get("colors") or ()}
    named = 0 in names and all(isinstance(name, str) for name in names.values())
    if not named or not names.keys() <= colors.keys() or array.dtype.name != "uint8":
        return ()
    return tuple(
        LabelClass(value, str(names[value]), int(bytes(colors[value][:3]).hex(), 16))
        for value in sorted(names)
    )
