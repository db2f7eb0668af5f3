"""Labels as TIFF: OME-TIFF stacks, and the masks of the Cell Tracking Challenge."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from engine.errors import UsageError
from engine.geometry.layout import BLOCK_PIXELS
from engine.results.planes import Planes
from engine.results.result import ResultStack

CLASSIC = 2**32 - 2**25  # bytes; beyond, a TIFF needs 64-bit offsets
TILE = 512  # px; of frames that are not read whole
CTC_MOST = 65_535  # the largest id that the challenge's 16-bit masks hold


def highest_label(labels: Planes) -> int:
    """The largest label of a stack; every plane is read for it, band by band."""
    return max(
        int(labels.read(t, z, band).max(initial=0))
        for t, z in labels.numbers
        for band in labels.bands()
    )


def tiff_type(stack: ResultStack) -> str:
    """The smallest type of OME-TIFF that holds the labels; UsageError where none does."""
    if stack.classes:
        return "uint8"
    most = highest_label(stack.labels)
    if most > np.iinfo(np.uint32).max:
        raise UsageError(
            f"{stack.store}: has the label {most}, and OME-TIFF holds 32 bits; keep the Zarr"
        )
    return "uint16" if most <= np.iinfo(np.uint16).max else "uint32"


def write_stack(path: Path, stack: ResultStack) -> None:
    """Write all labels of a stack as one OME-TIFF, plane by plane; large planes tile by tile."""
    labels, dtype = stack.labels, tiff_type(stack)
    shape = labels.levels[0].array.shape
    size = math.prod(shape) * np.dtype(dtype).itemsize
    large = labels.size("Y") * labels.size("X") > BLOCK_PIXELS
    first = labels.first
    note = f"labels of {stack.name} by {stack.model}; first frame t={first[0]}, z={first[1]}"
    metadata: dict[str, Any] = {"axes": labels.axes, "Name": stack.name, "Description": note}
    for axis, um in labels.pixel_size_um.items():
        metadata |= {f"PhysicalSize{axis}": um, f"PhysicalSize{axis}Unit": "µm"}
    if labels.time_step_s:
        metadata |= {"TimeIncrement": labels.time_step_s, "TimeIncrementUnit": "s"}
    with tifffile.TiffWriter(path, bigtiff=size > CLASSIC, ome=True) as tiff:
        tiff.write(
            _tiles(labels, dtype) if large else _planes(labels, dtype),
            shape=shape, dtype=dtype, metadata=metadata, photometric="minisblack",
            compression="zlib", tile=(TILE, TILE) if large else None,
        )  # fmt: skip


def write_mask(path: Path, labels: Planes, t: int) -> None:
    """Write one time point as the challenge has it: uint16, a page for each plane."""
    size = 2 * labels.size("Z") * labels.size("Y") * labels.size("X")
    with tifffile.TiffWriter(path, bigtiff=size > CLASSIC) as tiff:
        for z in labels.zs:
            plane = labels.read(t, z).astype(np.uint16)
            tiff.write(
                plane, photometric="minisblack", compression="zlib", metadata=None, contiguous=False
            )


def _planes(labels: Planes, dtype: str) -> Iterator[NDArray[Any]]:
    return (labels.read(t, z).astype(dtype) for t, z in labels.numbers)


def _tiles(labels: Planes, dtype: str) -> Iterator[NDArray[Any]]:
    """Tiles of every plane in raster order, out of one row of tiles at a time."""
    height, width = labels.size("Y"), labels.size("X")
    for t, z in labels.numbers:
        for y in range(0, height, TILE):
            row = labels.read(t, z, slice(y, min(y + TILE, height))).astype(dtype)
            for x in range(0, width, TILE):
                tile = row[:, x : x + TILE]
                yield np.pad(tile, [(0, TILE - side) for side in tile.shape])
