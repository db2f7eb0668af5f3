"""The job's tables, put together from records, block by block: memory does not grow with them.

frames.parquet, frames.csv   a row per stack and frame
objects.parquet              a row per object
timings.parquet              seconds per block and stage
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.measure import OBJECT_DTYPES, ObjectColumns

ROWS = 8192  # rows gathered before they are written as one row group: a megabyte or so
STAGES = ("read", "statistics", "network", "labels", "measure", "levels", "write")

_SUMMARIES = [f"area_{s}_{u}" for u in ("px", "um2") for s in ("mean", "median", "q25", "q75")]
_FRAME_COLUMNS = [
    ("stack", pa.string()),
    ("t", pa.int64()),
    ("z", pa.int64()),
    ("status", pa.string()),
    ("objects", pa.int64()),
    *((name, pa.float64()) for name in _SUMMARIES),
    ("foreground_fraction", pa.float64()),
    ("mean_intensity_objects", pa.float64()),
    ("mean_intensity_background", pa.float64()),
    ("mean_probability_objects", pa.float64()),
    ("objects_touching_border", pa.int64()),
    ("missing_chunks", pa.int64()),
]


def frames_schema(class_names: Sequence[str] = ()) -> pa.Schema:
    """Columns of the frames table; class maps have the fraction of each class as well."""
    return pa.schema([*_FRAME_COLUMNS, *((f"fraction_{n}", pa.float64()) for n in class_names)])


def objects_schema() -> pa.Schema:
    """Columns of the objects table."""
    columns = [(name, pa.from_numpy_dtype(dtype)) for name, dtype in OBJECT_DTYPES.items()]
    where = [("stack", pa.string()), ("t", pa.int64()), ("z", pa.int64())]
    return pa.schema([*where, *columns, ("area_um2", pa.float64())])


def timings_schema() -> pa.Schema:
    """Columns of the timings table."""
    where = [("stack", pa.string()), ("step", pa.string()), ("index", pa.int64())]
    took = [("attempts", pa.int64()), ("tile", pa.int64())]
    return pa.schema([*where, *((f"{stage}_s", pa.float64()) for stage in STAGES), *took])


def encode_objects(
    stack: str, pixel_area_um2: float | None, parts: Sequence[tuple[int, int, ObjectColumns]]
) -> bytes:
    """A block's rows of the objects table, as Parquet: (t, z, columns) per frame."""
    sink = io.BytesIO()
    with ObjectsWriter(sink, stack, pixel_area_um2) as writer:
        for t, z, columns in parts:
            writer.add(t, z, columns)
    return sink.getvalue()


def decode_objects(data: bytes) -> dict[tuple[int, int], ObjectColumns]:
    """What `encode_objects` was given, by (t, z)."""
    table = pq.read_table(io.BytesIO(data), schema=objects_schema())
    t, z = table["t"].to_numpy(), table["z"].to_numpy()
    found = {}
    for one in sorted(set(zip(t.tolist(), z.tolist(), strict=True))):
        rows = table.filter(pa.array((t == one[0]) & (z == one[1])))
        found[one] = {name: rows[name].to_numpy() for name in OBJECT_DTYPES}
    return found


class ObjectsWriter:
    """Writes a block's or a canvas's part of the objects table, frame by frame."""

    def __init__(self, sink: Any, stack: str, pixel_area_um2: float | None) -> None:
        self._stack, self._pixel_area = stack, pixel_area_um2
        self._writer = pq.ParquetWriter(sink, objects_schema(), compression="zstd")
        self._gathered: list[pa.Table] = []
        self._rows = 0

    def add(self, t: int, z: int, columns: ObjectColumns) -> None:
        """Add the objects of a frame, or more of them."""
        n = len(columns["label"])
        if not n:
            return
        area = columns["area_px"]
        um2 = pa.nulls(n, pa.float64()) if self._pixel_area is None else area * self._pixel_area
        where = {"stack": [self._stack] * n, "t": np.full(n, t), "z": np.full(n, z)}
        values = {**where, **columns, "area_um2": um2}
        self._gathered.append(pa.table(values, schema=objects_schema()))
        self._rows += n
        if self._rows >= ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._gathered:
            self._writer.write_table(pa.concat_tables(self._gathered).combine_chunks())
        self._gathered, self._rows = [], 0

    def __enter__(self) -> ObjectsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


def write_frames(
    parquet: Path, text: Path, rows: Iterator[dict[str, Any]], schema: pa.Schema
) -> None:
    """Write the frames table as Parquet and as CSV, from the rows of all records."""
    with text.open("w", newline="", encoding="utf-8") as file:
        lines = csv.DictWriter(file, schema.names, extrasaction="ignore", lineterminator="\n")
        lines.writeheader()

        def told() -> Iterator[pa.Table]:
            for batch in _batches(rows):
                lines.writerows(batch)
                yield _table(batch, schema)

        _write(parquet, told(), schema)


def write_objects(path: Path, parts: Iterator[Path]) -> None:
    """Join the blocks' parts, in their order, into one table."""
    schema = objects_schema()

    def batches() -> Iterator[pa.Table]:
        for part in parts:
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches(batch_size=ROWS):
                    yield pa.Table.from_batches([batch]).cast(schema)

    _write(path, batches(), schema)


def write_timings(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Write the timings table."""
    schema = timings_schema()
    _write(path, (_table(batch, schema) for batch in _batches(rows)), schema)


def _write(path: Path, tables: Iterator[pa.Table], schema: pa.Schema) -> None:
    """Write tables one after the other, in row groups of ROWS rows or a little more."""
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        gathered: list[pa.Table] = []
        rows = 0
        for table in tables:
            if table.num_rows:
                gathered.append(table)
                rows += table.num_rows
            if rows >= ROWS:
                writer.write_table(pa.concat_tables(gathered).combine_chunks())
                gathered, rows = [], 0
        if gathered:
            writer.write_table(pa.concat_tables(gathered).combine_chunks())


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    columns = {name: [row.get(name) for row in rows] for name in schema.names}
    return pa.table(columns, schema=schema)


def _batches(rows: Iterator[dict[str, Any]], size: int = 256) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
