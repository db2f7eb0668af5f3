"""Label images in Zarr: arrays, OME-Zarr images, label images and results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.errors import StackError
from engine.results.planes import Number, Planes
from engine.results.result import classes_of, default_labels
from engine.results.score.frames import LabelFrames, plane_frames
from engine.stacks.axes import UNKNOWN
from engine.stacks.base import CANONICAL
from engine.stacks.zarr import ngff
from engine.stacks.zarr.chunks import StoredArray
from engine.stacks.zarr.metadata import is_zarr, read_node
from engine.stacks.zarr.stack import open_array

USUAL_AXES = {2: "YX", 3: "TYX", 4: "TZYX", 5: "TCZYX"}  # of arrays that name none


def open_zarr(path: Path) -> LabelFrames:
    """Open a Zarr array, image, label image or result; of a result with several, its own."""
    node, labels = read_node(path), path / "labels"
    if node.is_array:
        stored = open_array(str(path), path)
        axes = "".join(name[:1] for name in node.names).upper()  # as "time", "plane"
        if not axes or not set(axes) <= set(CANONICAL):
            axes = USUAL_AXES.get(stored.array.ndim, "")
        return plane_frames(_planes(path, stored, axes, (0, 0), all_written=False))
    if is_zarr(labels) and not read_node(labels).is_array:
        return open_zarr(labels / default_labels(path, _names(labels)))
    if "labels" in node.ome:
        return open_zarr(path / default_labels(path.parent, _names(path)))
    if not node.is_image:
        raise StackError(f"{path}: is a Zarr group without labels and without an image")
    image = ngff.image(str(path), node)
    stored, axes = open_array(str(image.array), image.array), image.letters(len(image.names))
    ours = "stackseg" in node.attributes  # every file of which is written
    planes = _planes(path, stored, axes, image.first_frame(), all_written=ours)
    classes = classes_of(node.ome, planes.dtype)
    return replace(plane_frames(planes), classes=classes, pixel_size_um=image.pixel_size_um)


def _planes(
    path: Path, stored: StoredArray, axes: str, first: Number, *, all_written: bool
) -> Planes:
    """The planes of labels; an axis of unknown meaning counts as T.

    Raises StackError where they have other axes than T, Z, Y and X, or where none of the chunks is
    there, which is no background.
    """
    shape = stored.array.shape
    if len(axes) != len(shape) or axes[-2:] != "YX":
        raise StackError(f"{path}: labels need axes that end in YX, not {axes} of {shape}")
    known = list(zip(axes, shape, strict=True))
    axes = "".join("T" if axis == UNKNOWN and n > 1 else axis for axis, n in known)
    for at, axis in enumerate(axes[:-2]):
        if shape[at] > 1 and (axis not in "TZ" or axis in axes[:at]):
            raise StackError(
                f"{path}: labels have the axes T, Z, Y and X, not {axes} of the shape {shape}"
            )
    if not all_written and not stored.has_files:
        raise StackError(
            f"{stored.folder}: none of its chunks is there; copy the store again, or write it with "
            "its empty chunks"
        )
    return Planes(path, axes, (stored,), first, all_written=all_written)


def _names(labels: Path) -> list[str]:
    """Names of the label images that a group lists or, where it lists none, holds."""
    children = (read_node(child) for child in read_node(labels).children)
    return ngff.label_names(labels) or [c.where.name for c in children if not c.is_array]
