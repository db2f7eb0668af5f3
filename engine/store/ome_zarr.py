"""Results as OME-Zarr 0.5: their metadata, and their shards as bytes.

    NAME.zarr/                 an NGFF image: the raw stack where it is kept, else the labels
      labels/                  themselves, since a store of labels alone opens as nothing in
        MODEL/                 common readers; below it the NGFF label image
          0, 1, ...            labels and their levels, sharded
        MODEL-objects/         another, of objects beside a class map, where they are asked for
      probability/MODEL/0      an NGFF image of 8-bit probabilities, where they are kept

Shards are encoded in memory and put into place as whole objects by an `ObjectStore`: nothing
is ever changed in place, and the bytes of a shard depend on its pixels alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.geometry.arrays import (
    IMAGE,
    LABELS,
    PROBABILITY,
    ArrayShape,
    ResultArray,
    level_layout,
)
from engine.geometry.layout import LabelLayout
from engine.model.spec import ModelSpec
from engine.stacks.base import StackInfo
from engine.store import sharding

if TYPE_CHECKING:  # imported where an image is kept, which takes 0.1 s less elsewhere
    from zarr.core.buffer import Buffer

LABEL_LIST = "labels/zarr.json"  # grows with each label image that is added
VERSION: Final = "0.5"  # of OME-Zarr
_KIND = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}


def metadata_files(
    name: str,
    info: StackInfo,
    layout: LabelLayout,
    arrays: Sequence[ResultArray],
    spec: ModelSpec,
    made_with: dict[str, Any],
) -> dict[str, bytes]:
    """Every metadata object of a result: key inside NAME.zarr -> content."""
    by_kind = {array.kind: array for array in arrays}
    labels, image = by_kind[LABELS], by_kind.get(IMAGE)
    label_images = {name: one for one in arrays for name in label_names([one])}

    def group(name: str, array: ResultArray, at: str, **more: Any) -> bytes:
        shown = {"multiscales": [_multiscale(name, info, layout, array, at)], **more}
        return group_metadata({"ome": {"version": VERSION, **shown}, "stackseg": made_with})

    files = {
        "zarr.json": group(name, image or labels, ""),  # what the root shows
        LABEL_LIST: label_list(list(label_images)),
    }
    for label, one in label_images.items():
        about = {"image-label": _image_label(spec, one)}
        files[f"{one.group}/zarr.json"] = group(label, one, one.group, **about)
    if (kept := by_kind.get(PROBABILITY)) is not None:
        files["probability/zarr.json"] = group_metadata({})
        what = f"probability of {spec.name}"
        files[f"{kept.group}/zarr.json"] = group(what, kept, kept.group)
    for array in arrays:
        for level in range(array.levels):
            key = f"{array.path(level)}/zarr.json"
            files[key] = array_metadata(array.shape(level_layout(layout, level)))
    return files


def label_names(arrays: Sequence[ResultArray]) -> list[str]:
    """Names of the label images among arrays."""
    return [array.group.removeprefix("labels/") for array in arrays if array.is_labels]


def label_list(names: Sequence[str]) -> bytes:
    """Metadata of the group that lists the label images of a result."""
    return group_metadata({"ome": {"version": VERSION, "labels": list(names)}})


def metadata_keys(arrays: Sequence[ResultArray], *, added: bool = False) -> tuple[str, ...]:
    """Keys of `metadata_files`; of labels `added` to a result, those that it does not have yet."""
    groups = {} if added else {"zarr.json": None, LABEL_LIST: None}
    for array in arrays:
        groups |= {f"{array.group}/zarr.json".lstrip("/"): None}
        if array.kind == PROBABILITY:
            groups |= {"probability/zarr.json": None}
    levels = [f"{a.path(level)}/zarr.json" for a in arrays for level in range(a.levels)]
    return (*groups, *levels)


def new_shard(shape: ArrayShape) -> NDArray[Any]:
    """Zeros for a block, (T, Z, Y, X) or (T, C, Z, Y, X): what blocks fill frame by frame."""
    return np.zeros(_block_shape(shape), dtype=shape.dtype)


def encode_shard(shape: ArrayShape, shard: NDArray[Any]) -> bytes:
    """The object that holds `shard` (see `new_shard`), as it lies on disk.

    A shard whose values are all 0 is encoded like any other, so that empty and lost differ.
    """
    if not _is_image(shape):
        return sharding.encode(shape, shard)
    objects: dict[str, Buffer] = {}
    _new_array(objects, shape, shape.shard)[...] = shard.reshape(shape.shard)
    return objects[_first_key(shape)].to_bytes()


class ShardOnItsWay:
    """A shard that is filled plane by plane, and is 0 where nothing was put.

    Planes are compressed as they come, but for those of images: Zarr encodes their shards, at once.
    """

    def __init__(self, shape: ArrayShape) -> None:
        self._shape = shape
        self._pixels = new_shard(shape) if _is_image(shape) else None
        self._encoder = sharding.Encoder(shape)

    def put(
        self, at: tuple[int, ...], plane: NDArray[Any], corner: tuple[int, int] = (0, 0)
    ) -> None:
        """Put a plane, (Y, X), by its index in `new_shard`; or a part of it, from `corner` on.

        A chunk begins at the corner.
        """
        if self._pixels is not None:
            (y, x), (height, width) = corner, plane.shape
            self._pixels[at][y : y + height, x : x + width] = plane
            return
        places = dict(zip("TCZ" if "C" in self._shape.axes else "TZ", at, strict=True))
        self._encoder.put(tuple(places[axis] for axis in self._shape.axes[:-2]), plane, corner)

    def encode(self) -> bytes:
        """The object that holds the shard, see `encode_shard`."""
        if self._pixels is None:
            return self._encoder.encode()
        return encode_shard(self._shape, self._pixels)


def decode_shard(shape: ArrayShape, data: bytes) -> NDArray[Any]:
    """The values in a shard: the inverse of `encode_shard`.

    Raises ValueError where `data` is no shard of the array.
    """
    with _decoding():
        found: NDArray[Any] = (
            _open_shard(shape, data)[...] if _is_image(shape) else sharding.decode(shape, data)
        )
    return found.reshape(_block_shape(shape))


def planes_of(shape: ArrayShape, data: bytes) -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
    """The planes (Y, X) in a shard, each with its index along the axes of `new_shard` before these.

    They are decoded one by one, and not to be written to. Raises ValueError as `decode_shard` does.
    """
    if not _is_image(shape):
        with _decoding():
            yield from zip(
                np.ndindex(*_block_shape(shape)[:-2]), sharding.planes(shape, data), strict=True
            )
        return
    array = _open_shard(shape, data)
    for at in np.ndindex(*_block_shape(shape)[:-2]):
        places = dict(zip("TCZ" if "C" in shape.axes else "TZ", at, strict=True))
        with _decoding():
            plane: NDArray[Any] = array[tuple(places[axis] for axis in shape.axes[:-2])]
        yield at, plane


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a codec's own exceptions share no base class
        raise ValueError(f"not a shard of the array: {error}") from error


def _open_shard(shape: ArrayShape, data: bytes) -> Any:
    from zarr.core.buffer import default_buffer_prototype

    objects = {_first_key(shape): default_buffer_prototype().buffer.from_bytes(data)}
    return _new_array(objects, shape, shape.shard)


def _is_image(shape: ArrayShape) -> bool:
    """Whether pixels are stored by Blosc.

    Those of several bytes are as good as random in the lower ones: sorted by byte, the upper ones
    compress. Labels are runs of equal values as they are.
    """
    return shape.dtype in ("uint16", "int16", "float32")


def _first_key(shape: ArrayShape) -> str:
    return "/".join(["c", *("0" for _ in shape.axes)])


def _block_shape(shape: ArrayShape) -> list[int]:
    sizes = dict(zip(shape.axes, shape.shard, strict=True))
    return [sizes.get(axis, 1) for axis in ("TCZYX" if "C" in sizes else "TZYX")]


def provisional(labels: ResultArray) -> ResultArray:
    """Labels before they are stitched: ids of a block always fit 32 bits."""
    return replace(labels, dtype="uint32") if labels.gives_instances else labels


def array_metadata(shape: ArrayShape) -> bytes:
    """Metadata of an array, byte for byte as Zarr writes them."""
    item = np.dtype(shape.dtype)
    order = {"name": "bytes", "configuration": {"endian": "little"}}
    blosc = {"typesize": item.itemsize, "cname": "zstd", "clevel": 1, "shuffle": "shuffle"}
    codec = (
        _named("blosc", **blosc, blocksize=0)
        if _is_image(shape)
        else _named("zstd", level=sharding.ZSTD_LEVEL, checksum=False)
    )
    codecs = [order if item.itemsize > 1 else {"name": "bytes"}, codec]
    shards = _named(
        "sharding_indexed",
        chunk_shape=shape.chunk,
        codecs=codecs,
        index_codecs=[order, {"name": "crc32c"}],
        index_location="end",
    )
    content = {
        "shape": shape.shape,
        "data_type": shape.dtype,
        "chunk_grid": _named("regular", chunk_shape=shape.shard),
        "chunk_key_encoding": _named("default", separator="/"),
        "fill_value": item.type(0).item(),
        "codecs": [shards],
        "attributes": {},
        "dimension_names": [axis.lower() for axis in shape.axes],
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }
    return json.dumps(content, indent=2).encode()


def _named(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


def _new_array(objects: dict[str, Buffer], shape: ArrayShape, size: tuple[int, ...]) -> Any:
    """An array of `size` pixels in memory, whose objects are `objects`, by key."""
    import zarr
    from zarr.codecs import BloscCodec, BytesCodec, ZstdCodec
    from zarr.storage import MemoryStore

    blosc = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")
    return zarr.create_array(
        MemoryStore(objects),
        shape=size,
        dtype=shape.dtype,
        chunks=shape.chunk,
        shards=shape.shard,
        serializer=BytesCodec(endian="little"),
        compressors=[blosc if _is_image(shape) else ZstdCodec(level=sharding.ZSTD_LEVEL)],
        fill_value=0,
        dimension_names=[a.lower() for a in shape.axes],
        config={"write_empty_chunks": True},
    )


def group_metadata(attributes: dict[str, Any]) -> bytes:
    """Zarr's metadata of a group."""
    content = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(content, indent=2).encode()


def _multiscale(
    name: str, info: StackInfo, layout: LabelLayout, array: ResultArray, group: str
) -> dict[str, Any]:
    """The metadata of an array and its levels, with paths from `group`."""
    axes = array.shape(layout).axes
    first = {"T": layout.t0, "Z": layout.z0}
    datasets = []
    for level in range(array.levels):
        scale = [_scale(info, a) * (2**level if a in "YX" else 1) for a in axes]
        # The centre of a pixel of a level lies amid those that it was made of.
        origin = [
            _scale(info, a) * (first.get(a, 0) + ((2**level - 1) / 2 if a in "YX" else 0))
            for a in axes
        ]
        path = array.path(level).removeprefix(f"{group}/")
        datasets.append(dataset(path, scale, origin if any(origin) else None))
    found: dict[str, Any] = {
        "name": name,
        "axes": named_axes(axes, info.pixel_size_um, info.time_step_s),
        "datasets": datasets,
    }
    if array.levels > 1:
        found["type"] = "mean" if array.kind == IMAGE else "mode"
    return found


def dataset(
    path: str, scale: Sequence[float], translation: Sequence[float] | None = None
) -> dict[str, Any]:
    """The metadata of a level: an array, and its place."""
    places: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if translation:
        places.append({"type": "translation", "translation": translation})
    return {"path": path, "coordinateTransformations": places}


def named_axes(
    axes: str, pixel_size_um: Mapping[str, float], time_step_s: float | None
) -> list[dict[str, str]]:
    """The axes of a multiscale, with units where sizes are known."""
    units = dict.fromkeys(pixel_size_um, "micrometer")
    units |= {"T": "second"} if time_step_s else {}
    return [
        {"name": a.lower(), "type": _KIND[a]} | ({"unit": units[a]} if a in units else {})
        for a in axes
    ]


def _scale(info: StackInfo, axis: str) -> float:
    if axis == "T":
        return float(info.time_step_s or 1.0)
    return float(info.pixel_size_um.get(axis, 1.0))


def _image_label(spec: ModelSpec, labels: ResultArray) -> dict[str, Any]:
    """Class maps name and colour their classes; instances take the viewer's own colours."""
    content: dict[str, Any] = {"version": VERSION, "source": {"image": "../../"}}
    if labels.gives_instances:
        return content
    colors, properties = [], []
    for value, c in enumerate(spec.classes):
        rgba = [*bytes.fromhex(c.color[1:]), 255 if value else 0]
        colors.append({"label-value": value, "rgba": rgba})
        properties.append({"label-value": value, "name": c.name})
    return {**content, "colors": colors, "properties": properties}
