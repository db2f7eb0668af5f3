"""Outlines for QuPath: a GeoJSON FeatureCollection for each frame.

Objects are detections, which QuPath draws by the million; the classes of a class map are
annotations, one each, with the class's name and colour. Coordinates are pixels of the full size,
along pixel edges. Source of the properties: what QuPath 0.4 and later write themselves.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from scipy import ndimage

from engine.errors import OutputError, first_line
from engine.results.convert.polygons import polygons
from engine.results.planes import Number
from engine.results.result import ResultStack

OF_STACKSEG = uuid.UUID("6f1d8a52-4c0b-5a0e-9a53-0f7e3cbd2b11")  # names its ids; any would do
AREA = "Area px^2"
MEASURES = {
    "area_px": AREA,
    "area_um2": "Area um^2",
    "mean_probability": "Mean probability",
}
INTENSITY = "Mean intensity"


def write_frame(path: Path, stack: ResultStack, number: Number) -> None:
    """Write the outlines of a frame, one feature after the other."""
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for n, feature in enumerate(_features(stack, number)):
            file.write(",\n" if n else "\n")
            json.dump(feature, file, separators=(",", ":"), allow_nan=False)
        file.write("\n]}\n")


def _features(stack: ResultStack, number: Number) -> Iterator[dict[str, Any]]:
    labels = stack.labels.read(*number)
    recorded = {} if stack.classes else _recorded(stack, number)
    classes = {c.value: c for c in stack.classes}
    boxes: Any = ndimage.find_objects(labels)
    t, z = number
    for label, box in enumerate(boxes, 1):
        if box is None:
            continue
        mask = labels[box] == label
        found = polygons(mask, (box[1].start, box[0].start))
        several = len(found) > 1
        name, measures = recorded.get(label, ("", {AREA: int(mask.sum())}))
        named = classes.get(label) or stack.object_classes.get(name, stack.objects)
        properties = {
            "objectType": "annotation" if classes else "detection",
            **({} if label in classes else {"name": str(label)}),
            "classification": {"name": named.name, "color": list(named.rgb)},
            "measurements": measures,
        }
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(OF_STACKSEG, f"{stack.name}/{t}/{z}/{label}")),
            "geometry": {
                "type": "MultiPolygon" if several else "Polygon",
                "coordinates": found if several else found[0],
                "plane": {"c": -1, "z": z, "t": t},
            },
            "properties": properties,
        }


def _recorded(stack: ResultStack, number: Number) -> Mapping[int, tuple[str, Mapping[str, float]]]:
    """Class and measures of each object of a frame by its label; empty without its job."""
    if stack.folder is None or stack.origin is None:
        return {}
    path, (t, z) = stack.folder / "objects.parquet", number
    where = [("stack", "==", stack.name), ("t", "==", t), ("z", "==", z)]
    try:
        table: pa.Table = pq.read_table(path, filters=where)
    except (OSError, pa.ArrowException) as error:
        raise OutputError(
            f"{path}: cannot be read ({first_line(error)}); remove it and run the job again, "
            "which writes it again"
        ) from error
    # The table has columns for the stack with the most channels.
    names = MEASURES | _intensities(table.schema, stack.origin.measured_channels)
    return {
        row["label"]: (row["class"], {n: row[c] for c, n in names.items() if _is_number(row[c])})
        for row in table.select(["label", "class", *names]).to_pylist()
    }


def _intensities(schema: pa.Schema, numbers: Sequence[int]) -> dict[str, str]:
    """What to call the mean intensity in each channel, by its column in the objects table."""
    columns = [f"mean_intensity_{number}" for number in numbers]
    if list(numbers) == [0]:
        return {columns[0]: INTENSITY}
    metadata = [schema.field(column).metadata or {} for column in columns]
    channels = [field.get(b"channel", b"").decode() for field in metadata]
    if "" in channels or len(set(channels)) < len(numbers):
        channels = [str(number) for number in numbers]
    return {c: f"{INTENSITY}: {name}" for c, name in zip(columns, channels, strict=True)}


def _is_number(value: float | None) -> bool:
    """Whether JSON has it: the mean of pixels that are not finite is no number."""
    return value is not None and math.isfinite(value)
