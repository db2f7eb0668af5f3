"""The job's tables, put together from records, block by block: memory does not grow with them.

frames.parquet, frames.csv   a row per stack and frame
objects.parquet              a row per object
volumes.parquet, volumes.csv a row per stack with a Z axis, time point and class
timings.parquet              seconds per block and stage
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.measure.objects import ObjectColumns, ObjectsOf, channels_of, object_dtypes
from engine.store.arrow import array_of, picked, table_of
from engine.store.columns import objects_schema, timings_schema
from engine.store.records import Row

ROWS = 8192  # rows gathered before they are written as one row group: a megabyte or so


def encode_objects(of: ObjectsOf, parts: Sequence[tuple[int, int, ObjectColumns]]) -> bytes:
    """A block's rows of the objects table, as Parquet: (t, z, columns) per frame."""
    sink = io.BytesIO()
    with ObjectsWriter(sink, of) as writer:
        for t, z, columns in parts:
            writer.add(t, z, columns)
    return sink.getvalue()


def decode_objects(of: ObjectsOf, data: bytes) -> dict[tuple[int, int], ObjectColumns]:
    """What `encode_objects` was given, by (t, z)."""
    table = pq.read_table(io.BytesIO(data))
    numbers = [of.class_names.index(name) for name in table["class"].to_pylist()]
    table = table.set_column(
        table.schema.get_field_index("class"), "class", array_of(numbers, pa.int64())
    )
    names = object_dtypes(channels_of(table.column_names))
    t, z = table["t"].to_numpy(), table["z"].to_numpy()
    found = {}
    for one in sorted(set(zip(t.tolist(), z.tolist(), strict=True))):
        rows = table.filter(pa.array((t == one[0]) & (z == one[1])))
        found[one] = {name: rows[name].to_numpy() for name in names}
    return found


class _RowGroups:
    """Writes a table as Parquet, in row groups of ROWS rows or a little more."""

    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        self._schema = schema
        # Measures hardly ever repeat: a dictionary of them costs more than it saves.
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        self._writer = pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=texts)
        self._gathered: list[pa.Table] = []
        self._rows = 0

    def add_rows(self, table: pa.Table) -> None:
        """Add rows; they are written once they are enough."""
        if table.num_rows:
            self._gathered.append(table)
            self._rows += table.num_rows
        if self._rows >= ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._gathered:
            self._writer.write_table(pa.concat_tables(self._gathered).combine_chunks())
        self._gathered, self._rows = [], 0
        # Have the allocator return what is free: else a job's peak grows with its frames.
        pa.default_memory_pool().release_unused()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


class ObjectsWriter(_RowGroups):
    """Writes a block's or a stitch group's part of the objects table, frame by frame."""

    def __init__(self, sink: Any, of: ObjectsOf) -> None:
        super().__init__(sink, objects_schema(of.channels))
        self._of = of
        self._frames: list[ObjectColumns] = []  # of the next row group, with columns t and z

    def add(self, t: int, z: int, columns: ObjectColumns) -> None:
        """Add the objects of a frame, or more of them; sums of other channels are left out."""
        n = len(columns["label"])
        if not n:
            return
        self._frames.append({**columns, "t": np.full(n, t), "z": np.full(n, z)})
        self._rows += n
        if self._rows >= ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._frames:
            first, *_ = self._frames
            columns = {
                name: np.concatenate([frame[name] for frame in self._frames])
                for name in self._schema.names
                if name in first
            }
            stack = picked([self._of.stack], np.zeros(self._rows, np.uint8))
            named = {"stack": stack, "class": picked(self._of.class_names, columns["class"])}
            values = {**columns, **named, **self._in_um(columns)}
            self._gathered = [table_of(values, self._schema)]
            self._frames = []
        super()._flush()

    def _in_um(self, columns: ObjectColumns) -> dict[str, Any]:
        """What is given in um as well."""
        names = {"area_px": "area_um2", "centroid_y_px": "centroid_y_um",
                 "centroid_x_px": "centroid_x_um"}  # fmt: skip
        names |= {name: f"{name}_um" for name in ("bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1")}
        if self._of.pixel_size_um is None:
            return {name: pa.nulls(len(columns["label"]), pa.float64()) for name in names.values()}
        height, width = self._of.pixel_size_um
        size = {"area_px": height * width}
        size |= {name: height if "_y" in name else width for name in names if name not in size}
        return {names[name]: columns[name] * size[name] for name in names}


def write_rows(parquet: Path, text: Path, rows: Iterator[Row], schema: pa.Schema) -> None:
    """Write a table as Parquet and as CSV, from its rows: that of frames, or of volumes."""
    with text.open("w", newline="", encoding="utf-8") as file:
        lines = csv.DictWriter(file, schema.names, extrasaction="ignore", lineterminator="\n")
        lines.writeheader()

        def batches() -> Iterator[pa.Table]:
            for batch in _batches(rows):
                lines.writerows(batch)
                yield _table(batch, schema)

        _write(parquet, batches(), schema)


def write_objects(path: Path, parts: Iterator[BinaryIO], schema: pa.Schema) -> None:
    """Join the blocks' parts, in their order, into one table of the columns `schema`."""

    def batches() -> Iterator[pa.Table]:
        for part in parts:
            with part, pq.ParquetFile(part) as file:
                for batch in file.iter_batches(batch_size=ROWS):
                    yield widened(pa.Table.from_batches([batch]), schema)

    _write(path, batches(), schema)


def widened(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A part of the objects table with all columns of `schema`: null where it lacks a channel."""
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    # Not `cast`: what it needs takes long to import.
    return pa.Table.from_arrays(table.select(schema.names).columns, schema=schema)


def write_timings(path: Path, rows: Iterator[Row]) -> None:
    """Write the timings table."""
    schema = timings_schema()
    _write(path, (_table(batch, schema) for batch in _batches(rows)), schema)


def _write(path: Path, tables: Iterator[pa.Table], schema: pa.Schema) -> None:
    with _RowGroups(path, schema) as rows:
        for table in tables:
            rows.add_rows(table)


def _table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    columns = {name: [row.get(name) for row in rows] for name in schema.names}
    return table_of(columns, schema)


def _batches(rows: Iterator[Row], size: int = 256) -> Iterator[list[Row]]:
    while batch := list(itertools.islice(rows, size)):
        yield batch
