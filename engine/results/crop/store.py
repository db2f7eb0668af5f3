"""A part of a result as an OME-Zarr of its own: image and labels, placed where they lie in it.

    NAME.zarr/             the image: raw pixels, with C where it has channels
      0
      labels/MODEL/        the labels of the box, all classes or ids, with names and colours
        0

Both have one level. Scales are those of the whole. The translation is that of the box, so that a
viewer that opens both shows the part at its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from ome_zarr_models.v05.image import ImageAttrs
from ome_zarr_models.v05.image_label import ImageLabelAttrs
from ome_zarr_models.v05.labels import LabelsAttrs
from pydantic import ValidationError

from engine.errors import FrameError
from engine.results.crop.boxes import Box
from engine.results.result import ResultStack
from engine.stacks.base import Stack
from engine.stacks.zarr.metadata import read_node
from engine.store.ome_zarr import VERSION, dataset, group_metadata, named_axes

# Keys that come first: bytes must not follow the order of fields in ome-zarr-models.
_FIRST = ("version", "source", "label-value", "name", "axes", "datasets", "multiscales")
_CHUNK = 1024  # px, at most, along Y and X


def write_crop(
    path: Path, stack: ResultStack, source: Stack, ts: Sequence[int], box: Box, about: Any
) -> int:
    """Write the part of a result within a box, of some time points, to a new folder.

    Parameters
    ----------
    path
        The folder, which is made.
    source
        The open source of `stack`, see `open_source`.
    ts, box
        Numbers of time points and planes as the stack has them. A single one keeps its axis, so
        that its place is known.
    about
        What the metadata say of how it was cut, as JSON has it.

    Returns in how many frames, all of them set aside by the job, the image cannot be read: it is 0
    there. Raises FrameError where another one cannot be read.
    """
    zs = range(*box.z)
    axes = stack.labels.axes
    channels = range(source.info.size("C")) if "C" in source.info.axes else None
    place = _Place(stack, axes, ts[0], box)
    lengths = {"T": len(ts), "Z": len(zs), "Y": box.y[1] - box.y[0], "X": box.x[1] - box.x[0]}
    image_axes = axes
    if channels is not None:
        lengths["C"] = len(channels)
        image_axes = ("T" if "T" in axes else "") + "C" + axes.replace("T", "")
    where = f"labels/{stack.model}"
    image = _array(path / "0", image_axes, lengths, source.info.dtype)
    labels = _array(path / where / "0", axes, lengths, stack.labels.dtype.name)
    lost = 0
    for i, t in enumerate(ts):
        for j, z in enumerate(zs):
            _put(labels, axes, i, j, stack.labels.read(t, z, box.rows)[:, box.columns])
            try:
                pixels = source.read_window(t, z, channels or (0,), box.rows, box.columns)
            except FrameError:
                if (t, z) not in stack.failed:
                    raise
                lost += 1
                continue
            _put(image, image_axes, i, j, pixels if channels is not None else pixels[0])
    made = {"stackseg": {"model": stack.model, "crop": about}}
    names = {"omero": _omero(source)} if channels is not None and source.info.channel_names else {}
    scales = [place.multiscale(stack.name, image_axes)]
    _group(path, ImageAttrs, {"multiscales": scales, **names}, made)
    _group(path / "labels", LabelsAttrs, {"labels": [stack.model]}, {})
    source_of: dict[str, Any] = {"source": {"image": "../../"}}
    content: dict[str, Any] = {"multiscales": [place.multiscale(stack.model, axes)]}
    described: Any = read_node(stack.store / where).ome.get("image-label")
    try:
        named = {**content, "image-label": {**(described or {}), **source_of}}
        _group(path / where, ImageLabelAttrs, named, made)
    except (TypeError, ValidationError):  # names and colours are not as the specification has them
        _group(path / where, ImageLabelAttrs, {**content, "image-label": source_of}, made)
    return lost


class _Place:
    """Scales and translations of a part."""

    def __init__(self, stack: ResultStack, axes: str, t: int, box: Box) -> None:
        labels = stack.labels
        sizes = labels.pixel_size_um
        self._scale = {axis: float(sizes.get(axis, 1.0)) for axis in "ZYX"} | {"C": 1.0}
        self._scale["T"] = float(labels.time_step_s or 1.0)
        first = {"T": t, "Z": box.z[0], "Y": box.y[0], "X": box.x[0]}
        self._origin = {axis: first.get(axis, 0) * self._scale[axis] for axis in "TCZYX"}
        self._known = sizes, labels.time_step_s

    def multiscale(self, name: str, axes: str) -> dict[str, Any]:
        """The metadata of one level."""
        scale, origin = ([of[axis] for axis in axes] for of in (self._scale, self._origin))
        return {
            "name": name,
            "axes": named_axes(axes, *self._known),
            "datasets": [dataset("0", scale, origin)],
        }


def _omero(source: Stack) -> dict[str, Any]:
    """Names of channels; the range of each is that of its type, which viewers change anyway."""
    dtype = np.dtype(source.info.dtype)
    end = 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
    window = {"min": 0.0, "max": end, "start": 0.0, "end": end}
    return {
        "channels": [
            {"label": name, "color": "FFFFFF", "window": window}
            for name in source.info.channel_names
        ]
    }


def _array(path: Path, axes: str, lengths: dict[str, int], dtype: str) -> Any:
    shape = tuple(lengths[axis] for axis in axes)
    chunk = tuple(min(lengths[axis], _CHUNK) if axis in "YX" else 1 for axis in axes)
    return zarr.create_array(
        path,
        shape=shape,
        chunks=chunk,
        dtype=dtype,
        fill_value=0,
        dimension_names=[axis.lower() for axis in axes],
        config={"write_empty_chunks": True},
    )


def _put(array: Any, axes: str, i: int, j: int, pixels: NDArray[Any]) -> None:
    """Put a frame (Y, X), or (C, Y, X), at time point i and plane j."""
    at: dict[str, Any] = {"T": i, "Z": j}
    array[tuple(at.get(axis, slice(None)) for axis in axes)] = pixels


def _group(path: Path, model: Any, content: dict[str, Any], more: dict[str, Any]) -> None:
    """Write the metadata of a group; ValidationError where they are not valid."""
    checked = model.model_validate({"version": VERSION, **content})
    ome = _ordered(checked.model_dump(by_alias=True, exclude_none=True))
    (path / "zarr.json").write_bytes(group_metadata({"ome": ome, **more}))


def _ordered(content: Any) -> Any:
    if isinstance(content, dict):
        keys = sorted(content, key=lambda k: _FIRST.index(k) if k in _FIRST else len(_FIRST))
        return {key: _ordered(content[key]) for key in keys}
    return [_ordered(one) for one in content] if isinstance(content, list | tuple) else content
