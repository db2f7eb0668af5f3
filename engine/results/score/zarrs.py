"""Label images in Zarr: arrays, OME-Zarr images, label images and results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import zarr

from engine.errors import StackError
from engine.results.result import classes_of, default_labels
from engine.results.score.frames import LabelFrames, array_frames
from engine.stacks.zarr.chunks import chunk_grid
from engine.stacks.zarr.ngff import first_indices
from engine.stacks.zarr.stack import stored_array

USUAL_AXES = {2: "YX", 3: "TYX", 4: "TZYX", 5: "TCZYX"}  # of arrays that name none
ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr array or group."""
    return any((path / name).is_file() for name in ZARR_FILES)


def open_zarr(path: Path) -> LabelFrames:
    """Open a Zarr array, image, label image or result; of a result with several, its own."""
    node = zarr.open(path, mode="r")
    if isinstance(node, zarr.Array):
        array = _array(path, written=False)
        return array_frames(path, array, _named_axes(array) or USUAL_AXES.get(array.ndim, ""))
    ome = _ome(node)
    if "labels" in node and isinstance(node["labels"], zarr.Group):
        return open_zarr(path / "labels" / default_labels(path, _label_images(node["labels"])))
    if "labels" in ome:
        return open_zarr(path / default_labels(path.parent, _label_images(node)))
    if "multiscales" not in ome:
        raise StackError(f"{path}: is a Zarr group without labels and without an image")
    image = ome["multiscales"][0]
    dataset = image["datasets"][0]
    axes = "".join(a["name"] for a in image["axes"])
    ours = "stackseg" in node.attrs  # every file of which is written
    array = _array(path / dataset["path"], written=ours)
    first = {axis.upper(): n for axis, n in first_indices(axes, dataset).items()}
    written = path / dataset["path"] if ours else None
    frames = array_frames(path, array, axes, first, written)
    return replace(frames, classes=classes_of(ome, array.dtype))


def _array(where: Path, *, written: bool) -> zarr.Array[Any]:
    """An array of labels; StackError where none of its chunks is there: it is no background.

    Where every file was `written`, each that is lost is named when it is read.
    """
    array, meta = stored_array(str(where), where)
    grid = chunk_grid(where, meta)
    if not written and grid is not None and not any(True for _ in grid.stored(array.shape)):
        raise StackError(
            f"{where}: none of its chunks is there; copy the store again, or write it with its "
            "empty chunks"
        )
    return array


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


def _label_images(labels: zarr.Group) -> list[str]:
    """Names of the label images that a group lists or, where it lists none, holds."""
    return list(_ome(labels).get("labels") or labels.group_keys())
