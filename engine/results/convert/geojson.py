"""Outlines for QuPath: a GeoJSON FeatureCollection for each frame.

Objects are detections, which QuPath draws by the million; the classes of a class map are
annotations, one each, with the class's name and colour. Coordinates are pixels of the full size,
along pixel edges. Source of the properties: what QuPath 0.4 and later write themselves.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import ndimage

from engine.errors import OutputError, first_line
from engine.results.convert.polygons import polygons
from engine.results.planes import Number
from engine.results.result import ResultStack

OF_STACKSEG = uuid.UUID("6f1d8a52-4c0b-5a0e-9a53-0f7e3cbd2b11")  # names its ids; any would do
MEASURES = {
    "area_px": "Area px^2",
    "area_um2": "Area um^2",
    "mean_probability": "Mean probability",
}
INTENSITY = "Mean intensity"


def write_frame(path: Path, stack: ResultStack, number: Number, measures: Measures) -> None:
    """Write the outlines of a frame, one feature after the other."""
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for n, feature in enumerate(_features(stack, number, measures)):
            file.write(",\n" if n else "\n")
            _dump(feature, file)
        file.write("\n]}\n")


class Measures:
    """Rows of the objects table, by frame and label; empty where no job made the labels."""

    def __init__(self, stack: ResultStack) -> None:
        folder = None if stack.classes else stack.folder
        self._path = folder / "objects.parquet" if folder is not None else None
        self._stack = stack

    def of(self, number: Number) -> Mapping[int, Mapping[str, float]]:
        """Measures of each object of a frame, by label."""
        if self._path is None or self._stack.origin is None:
            return {}
        t, z = number
        where = [("stack", "==", self._stack.name), ("t", "==", t), ("z", "==", z)]
        try:
            table: pa.Table = pq.read_table(self._path, filters=where)
        except (OSError, pa.ArrowException) as error:
            raise OutputError(
                f"{self._path}: cannot be read ({first_line(error)}); remove it and run the job "
                "again, which makes it anew"
            ) from error
        # The table has columns for the stack with the most channels.
        n_channels = self._stack.origin.measured_channels
        names = MEASURES | _intensities(table.schema, n_channels)
        return {
            row["label"]: {n: row[c] for c, n in names.items() if _is_number(row[c])}
            for row in table.select(["label", *names]).to_pylist()
        }


def _intensities(schema: pa.Schema, n_channels: int) -> dict[str, str]:
    """What to call the mean intensity in each channel, by its column in the objects table."""
    columns = [f"mean_intensity_{number}" for number in range(n_channels)]
    if n_channels == 1:
        return {columns[0]: INTENSITY}
    metadata = [schema.field(column).metadata or {} for column in columns]
    channels = [told.get(b"channel", b"").decode() for told in metadata]
    if "" in channels or len(set(channels)) < n_channels:
        channels = [str(number) for number in range(n_channels)]
    return {c: f"{INTENSITY}: {name}" for c, name in zip(columns, channels, strict=True)}


def _is_number(value: float | None) -> bool:
    """Whether JSON has it: pixels that are not finite give means that are none."""
    return value is not None and math.isfinite(value)


def _features(stack: ResultStack, number: Number, measures: Measures) -> Iterator[dict[str, Any]]:
    labels = stack.labels.read(*number)
    told = measures.of(number)
    classes = {c.value: c for c in stack.classes}
    for label, box in _boxes(labels):
        mask = labels[box] == label
        rows, columns = box
        found = polygons(mask, (columns.start, rows.start))
        properties: dict[str, Any] = {"objectType": "annotation" if classes else "detection"}
        if label in classes:
            one = classes[label]
            properties["classification"] = {"name": one.name, "color": list(one.rgb)}
            properties["measurements"] = {MEASURES["area_px"]: int(mask.sum())}
        else:
            properties["name"] = str(label)
            properties["classification"] = {
                "name": stack.objects.name,
                "color": list(stack.objects.rgb),
            }
            properties["measurements"] = dict(
                told.get(label, {MEASURES["area_px"]: int(mask.sum())})
            )
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(OF_STACKSEG, f"{stack.name}/{number[0]}/{number[1]}/{label}")),
            "geometry": _geometry(found, number),
            "properties": properties,
        }


def _boxes(labels: NDArray[Any]) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """Each label that occurs, in order, and the smallest window around it."""
    boxes: Any = ndimage.find_objects(labels)
    return ((n + 1, box) for n, box in enumerate(boxes) if box is not None)


def _geometry(found: list[list[list[tuple[int, int]]]], number: Number) -> dict[str, Any]:
    t, z = number
    several = len(found) > 1
    return {
        "type": "MultiPolygon" if several else "Polygon",
        "coordinates": found if several else found[0],
        "plane": {"c": -1, "z": z, "t": t},
    }


def _dump(feature: dict[str, Any], file: TextIO) -> None:
    json.dump(feature, file, separators=(",", ":"), allow_nan=False)
