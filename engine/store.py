"""Label volumes as OME-Zarr 0.5: the metadata of a stack's result, and its shards as bytes.

    NAME.zarr/                 an NGFF image whose dataset is the label array itself, since a store
      labels/                  of labels alone opens as nothing in common readers
        MODEL/                 an NGFF label image
          0                    the labels, uint32 or uint8, sharded

Shards are encoded in memory and put into place as whole objects by `engine.records`: nothing is
ever changed in place, and the bytes of a shard depend on its labels alone.
"""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from engine.layout import LabelLayout
from engine.model import ModelSpec
from engine.stacks.base import StackInfo

NGFF_VERSION = "0.5"
_KIND = {"T": "time", "Z": "space", "Y": "space", "X": "space"}


def label_path(spec: ModelSpec) -> str:
    """Path of the label image inside a result."""
    return f"labels/{spec.name}"


def metadata_files(
    name: str, info: StackInfo, layout: LabelLayout, spec: ModelSpec, made_with: dict[str, Any]
) -> dict[str, bytes]:
    """Every metadata object of a result: key inside NAME.zarr -> content."""
    image = label_path(spec)
    root = {"version": NGFF_VERSION, "multiscales": [_multiscale(name, info, layout, f"{image}/0")]}
    label = {
        "version": NGFF_VERSION,
        "multiscales": [_multiscale(spec.name, info, layout, "0")],
        "image-label": _image_label(spec, layout),
    }
    return {
        "zarr.json": _group({"ome": root, "stackseg": made_with}),
        "labels/zarr.json": _group({"ome": {"version": NGFF_VERSION, "labels": [spec.name]}}),
        f"{image}/zarr.json": _group({"ome": label, "stackseg": made_with}),
        f"{image}/0/zarr.json": array_metadata(layout),
    }


def metadata_keys(image: str) -> tuple[str, ...]:
    """Keys of `metadata_files`; `image` is the label image's, see `label_path`."""
    return "zarr.json", "labels/zarr.json", f"{image}/zarr.json", f"{image}/0/zarr.json"


def new_shard(layout: LabelLayout) -> NDArray[Any]:
    """Zeros for the labels of a block, always (T, Z, Y, X): what blocks fill frame by frame."""
    sizes = dict(zip(layout.axes, layout.shard, strict=True))
    return np.zeros([sizes.get(axis, 1) for axis in "TZYX"], dtype=layout.dtype)


def encode_shard(layout: LabelLayout, shard: NDArray[Any]) -> bytes:
    """The object that holds `shard` (see `new_shard`), as it lies on disk.

    A shard whose labels are all 0 is encoded like any other, so that empty and lost differ.
    """
    array = _new_array(MemoryStore(), layout, layout.shard)
    array[...] = shard.reshape(layout.shard)
    return _get(array.store, "/".join(["c", *("0" for _ in layout.axes)]))


def decode_shard(layout: LabelLayout, data: bytes) -> NDArray[Any]:
    """The labels in a shard, (T, Z, Y, X): the inverse of `encode_shard`.

    Raises ValueError where `data` is no shard of the layout.
    """
    store = MemoryStore()
    array = _new_array(store, layout, layout.shard)
    key = "/".join(["c", *("0" for _ in layout.axes)])
    sync(store.set(key, default_buffer_prototype().buffer.from_bytes(data)))
    try:
        found: NDArray[Any] = array[...]
    except Exception as error:  # a codec's own exceptions share no base class
        raise ValueError(f"not a shard of labels: {error}") from error
    sizes = dict(zip(layout.axes, layout.shard, strict=True))
    return found.reshape([sizes.get(axis, 1) for axis in "TZYX"])


def provisional_layout(layout: LabelLayout) -> LabelLayout:
    """The layout of labels before they are stitched: ids of a block always fit 32 bits."""
    return layout if layout.dtype == "uint8" else replace(layout, dtype="uint32")


def save_array(array: NDArray[Any]) -> bytes:
    """An array as a .npy file."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def load_array(data: bytes) -> NDArray[Any]:
    """The inverse of `save_array`; ValueError where it is damaged."""
    found: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return found


def _get(store: Any, key: str) -> bytes:
    buffer = sync(store.get(key, prototype=default_buffer_prototype()))
    return bytes(buffer.to_bytes())


def array_metadata(layout: LabelLayout) -> bytes:
    """Zarr's own metadata of the label array."""
    store = MemoryStore()
    _new_array(store, layout, layout.shape)
    return _get(store, "zarr.json")


def _new_array(store: MemoryStore, layout: LabelLayout, shape: tuple[int, ...]) -> Any:
    return zarr.create_array(
        store,
        shape=shape,
        dtype=layout.dtype,
        chunks=layout.chunk,
        shards=layout.shard,
        serializer=BytesCodec(endian="little"),
        compressors=[ZstdCodec(level=1)],
        fill_value=0,
        dimension_names=[a.lower() for a in layout.axes],
        config={"write_empty_chunks": True},
    )


def _group(attributes: dict[str, Any]) -> bytes:
    content = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(content, indent=2).encode()


def _multiscale(name: str, info: StackInfo, layout: LabelLayout, path: str) -> dict[str, Any]:
    scale = [_scale(info, a) for a in layout.axes]
    first = {"T": layout.t0, "Z": layout.z0}
    origin = [first.get(a, 0) * s for a, s in zip(layout.axes, scale, strict=True)]
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if any(origin):
        transforms.append({"type": "translation", "translation": origin})
    return {
        "name": name,
        "axes": [_axis(info, a) for a in layout.axes],
        "datasets": [{"path": path, "coordinateTransformations": transforms}],
    }


def _axis(info: StackInfo, axis: str) -> dict[str, str]:
    entry = {"name": axis.lower(), "type": _KIND[axis]}
    if axis == "T" and info.time_step_s:
        entry["unit"] = "second"
    if axis in info.pixel_size_um:
        entry["unit"] = "micrometer"
    return entry


def _scale(info: StackInfo, axis: str) -> float:
    if axis == "T":
        return float(info.time_step_s or 1.0)
    return float(info.pixel_size_um.get(axis, 1.0))


def _image_label(spec: ModelSpec, layout: LabelLayout) -> dict[str, Any]:
    """Class maps name and colour their classes; instances take the viewer's own colours."""
    content: dict[str, Any] = {"version": NGFF_VERSION, "source": {"image": "../../"}}
    if not layout.gives_instances:
        content["colors"] = [
            {"label-value": value, "rgba": [*bytes.fromhex(c.color[1:]), 255 if value else 0]}
            for value, c in enumerate(spec.classes)
        ]
        content["properties"] = [
            {"label-value": value, "name": c.name} for value, c in enumerate(spec.classes)
        ]
    return content
