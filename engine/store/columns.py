"""The columns of a job's tables: name, type, unit and meaning.

The schemas of the Parquet files are made of these, each field with its unit and meaning as
metadata; docs/tables.md lists them, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

STAGES = ("read", "statistics", "network", "labels", "measure", "levels", "write")


class Column(NamedTuple):
    """One column of a table."""

    name: str
    type: str  # as Arrow names it
    unit: str  # "" where it has none
    meaning: str
    null: str = ""  # when it has no value; "" where it always has one


_STACK = Column("stack", "string", "", "name of the stack: its labels are `NAME.zarr`")
_T = Column("t", "int64", "", "the stack's own number of the time point, from 0")
_Z = Column("z", "int64", "", "the stack's own number of the plane, from 0")
_FAILED = "the frame was set aside"
_NO_SIZE = "the stack tells no pixel size"
_NO_OBJECTS = "there are no objects, or there is a class map alone"

_SUMMARIES = {
    "mean": "mean", "median": "median", "q25": "lower quartile", "q75": "upper quartile",
}  # fmt: skip

FRAMES = (
    _STACK,
    _T,
    _Z,
    Column("status", "string", "", "`ok`, or `failed`: set aside, see failures.json"),
    Column("objects", "int64", "", "number of objects",
           f"{_FAILED}, or there is a class map alone"),
    *(
        Column(f"area_{name}_px", "double", "px", f"{words} of the objects' areas", _NO_OBJECTS)
        for name, words in _SUMMARIES.items()
    ),
    *(
        Column(f"area_{name}_um2", "double", "um^2", f"{words} of the objects' areas",
               f"{_NO_OBJECTS}, or {_NO_SIZE}")
        for name, words in _SUMMARIES.items()
    ),
    Column("foreground_fraction", "double", "", "share of the pixels that are foreground, 0..1",
           _FAILED),
    Column("mean_intensity_objects", "double", "raw pixel value",
           "mean over the foreground, in the model's first channel", "there is no foreground"),
    Column("mean_intensity_background", "double", "raw pixel value",
           "mean over the background, in the model's first channel", "there is no background"),
    Column("mean_probability_objects", "double", "", "mean probability over the foreground, 0..1",
           "there is no foreground"),
    Column("objects_touching_border", "int64", "", "objects with a pixel at the frame's border",
           f"{_FAILED}, or there is a class map alone"),
    Column("missing_chunks", "int64", "",
           "chunks that a Zarr input lacks, read as its fill value", _FAILED),
    Column("blank", "bool", "", "whether every channel that the model takes is constant", _FAILED),
)  # fmt: skip

OBJECTS = (
    _STACK,
    _T,
    _Z,
    Column("label", "uint64", "", "id of the object in the labels, from 1"),
    Column("class", "string", "", "name of the model's class that the object is of"),
    Column("area_px", "int64", "px", "number of pixels"),
    Column("area_um2", "double", "um^2", "area", _NO_SIZE),
    Column("centroid_y_px", "double", "px", "mean row of its pixels, from 0"),
    Column("centroid_x_px", "double", "px", "mean column of its pixels, from 0"),
    Column("centroid_y_um", "double", "um", "`centroid_y_px` times the pixel's height", _NO_SIZE),
    Column("centroid_x_um", "double", "um", "`centroid_x_px` times the pixel's width", _NO_SIZE),
    Column("bbox_y0", "int64", "px", "first row of the bounding box"),
    Column("bbox_x0", "int64", "px", "first column of the bounding box"),
    Column("bbox_y1", "int64", "px", "row after the last one of the bounding box"),
    Column("bbox_x1", "int64", "px", "column after the last one of the bounding box"),
    Column("bbox_y0_um", "double", "um", "`bbox_y0` times the pixel's height", _NO_SIZE),
    Column("bbox_x0_um", "double", "um", "`bbox_x0` times the pixel's width", _NO_SIZE),
    Column("bbox_y1_um", "double", "um", "`bbox_y1` times the pixel's height", _NO_SIZE),
    Column("bbox_x1_um", "double", "um", "`bbox_x1` times the pixel's width", _NO_SIZE),
    Column("eccentricity", "double", "",
           "of the ellipse with the same second moments in px: 0 a circle, towards 1 a line"),
    Column("solidity", "double", "", "area over that of the convex hull, both in px; up to 1"),
    Column("mean_probability", "double", "", "mean probability over its pixels, 0..1"),
    Column("touches_border", "bool", "", "whether a pixel of it lies at the frame's border"),
)  # fmt: skip

_LACKS = "the stack has fewer channels"
# C stands for the number of a channel of the stack, from 0: four columns for each.
INTENSITIES = (
    Column("mean_intensity_C", "double", "raw pixel value", "mean in channel C", _LACKS),
    Column("sum_intensity_C", "double", "raw pixel value",
           "sum in channel C; exact for integer pixels up to 2^53", _LACKS),
    Column("min_intensity_C", "double", "raw pixel value", "least in channel C", _LACKS),
    Column("max_intensity_C", "double", "raw pixel value", "greatest in channel C", _LACKS),
)  # fmt: skip

# NAME stands for a class of the model.
FRACTION = Column("fraction_NAME", "double", "", "share of the pixels of that class, 0..1", _FAILED)

VOLUMES = (
    _STACK,
    _T,
    Column("class", "string", "", "name of the model's class"),
    Column("voxels", "int64", "px", "pixels of that class in all planes of the time point"),
    Column("volume_ml", "double", "ml", "volume of these",
           "the stack does not tell the pixel size along Z, Y and X, or a plane was set aside"),
    Column("frames_failed", "int64", "", "planes that were set aside: their voxels are missing"),
)  # fmt: skip

TIMINGS = (
    _STACK,
    Column("step", "string", "", "`survey`, `segment` (of whole frames with their levels), "
           "`stitch`, `finish`, `level-1` and so on"),
    Column("index", "int64", "", "number of the frame, block or stitch group"),
    *(
        Column(f"{stage}_s", "double", "s", f"spent on the stage {stage}", "nothing was")
        for stage in STAGES
    ),
    Column("attempts", "int64", "", "most tries that a frame of it took"),
    Column("tile", "int64", "px", "side of the tiles where memory allowed less than planned",
           "it is as planned"),
)  # fmt: skip


def frames_schema(class_names: Sequence[str] = ()) -> pa.Schema:
    """Columns of the frames table; class maps have the fraction of each class as well."""
    fractions = (FRACTION._replace(name=f"fraction_{name}") for name in class_names)
    return pa.schema([_field(column) for column in (*FRAMES, *fractions)])


def objects_schema(channels: Iterable[int], names: Mapping[int, str] | None = None) -> pa.Schema:
    """Columns of the objects table of stacks whose `channels` are measured, by number.

    The `names` of channels are in the metadata of the intensities' fields, as "channel".
    """
    fields = [_field(column) for column in OBJECTS]
    for number in channels:
        name = (names or {}).get(number, "")
        for column in INTENSITIES:
            one = column._replace(
                name=column.name.replace("_C", f"_{number}"),
                meaning=column.meaning.replace("channel C", f"channel {number}"),
            )
            fields.append(_field(one, {"channel": name} if name else {}))
    return pa.schema(fields)


def volumes_schema() -> pa.Schema:
    """Columns of the volumes table."""
    return pa.schema([_field(column) for column in VOLUMES])


def timings_schema() -> pa.Schema:
    """Columns of the timings table."""
    return pa.schema([_field(column) for column in TIMINGS])


def _field(column: Column, more: dict[str, str] | None = None) -> pa.Field:
    texts = {"unit": column.unit, "meaning": column.meaning, "null": column.null, **(more or {})}
    metadata = {name: text for name, text in texts.items() if text}
    return pa.field(column.name, pa.type_for_alias(column.type), metadata=metadata)
