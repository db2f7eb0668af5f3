"""Label images in Zarr: arrays, OME-Zarr images, label images and results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.errors import StackError
from engine.results.result import classes_of, default_labels
from engine.results.score.frames import LabelFrames, array_frames
from engine.stacks.zarr import ngff
from engine.stacks.zarr.chunks import StoredArray
from engine.stacks.zarr.metadata import is_zarr, read_node
from engine.stacks.zarr.stack import open_array

USUAL_AXES = {2: "YX", 3: "TYX", 4: "TZYX", 5: "TCZYX"}  # of arrays that name none


def open_zarr(path: Path) -> LabelFrames:
    """Open a Zarr array, image, label image or result; of a result with several, its own."""
    node, labels = read_node(path), path / "labels"
    if node.is_array:
        stored = _open(path, all_written=False)
        axes = "".join(name[:1] for name in node.names).upper()  # as "time", "plane"
        if not axes or not set(axes) <= set("TCZYX"):
            axes = USUAL_AXES.get(stored.array.ndim, "")
        return array_frames(path, stored, axes, all_written=False)
    if is_zarr(labels) and not read_node(labels).is_array:
        return open_zarr(labels / default_labels(path, _names(labels)))
    if "labels" in node.ome:
        return open_zarr(path / default_labels(path.parent, _names(path)))
    if not node.is_image:
        raise StackError(f"{path}: is a Zarr group without labels and without an image")
    image = ngff.image(str(path), node)
    ours = "stackseg" in node.attributes  # every file of which is written
    stored = _open(image.array, all_written=ours)
    axes = image.letters(len(image.names))
    frames = array_frames(path, stored, axes, image.first_frame(), all_written=ours)
    return replace(frames, classes=classes_of(node.ome, stored.array.dtype))


def _open(where: Path, *, all_written: bool) -> StoredArray:
    """An array of labels; StackError where none of its chunks is there: it is no background."""
    stored = open_array(str(where), where)
    if not all_written and not stored.has_files:
        raise StackError(
            f"{where}: none of its chunks is there; copy the store again, or write it with its "
            "empty chunks"
        )
    return stored


def _names(labels: Path) -> list[str]:
    """Names of the label images that a group lists or, where it lists none, holds."""
    children = (read_node(child) for child in read_node(labels).children)
    return ngff.label_names(labels) or [c.where.name for c in children if not c.is_array]
