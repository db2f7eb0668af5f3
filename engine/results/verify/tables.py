"""The final tables against the records and parts that they were made of, row by row."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.results.verify.problems import Problem
from engine.results.verify.view import StackView
from engine.store import tables

Row = dict[str, Any]
Rows = Iterator[Row]
Key = tuple[int, ...]
SLICE = 4096  # rows compared at once while two tables agree


class TableCheck:
    """Compares one table. `excused` tells of which frames nobody knows the rows."""

    def __init__(
        self,
        path: str,
        views: list[StackView],
        keys: tuple[str, ...],
        excused: Callable[[str, int, int], bool],
    ) -> None:
        self._path, self._keys, self._excused = path, keys, excused
        self._views = {view.name: view for view in views}
        self._order = {view.name: i for i, view in enumerate(views)}

    def batches(self, expected: Iterator[pa.Table], found: Iterator[pa.Table]) -> Iterator[Problem]:
        """Problems of a table in batches; as long as they are equal no row is looked at."""
        ours, theirs = _skip_equal(expected, found)
        first = iter(ours.to_pylist() if ours is not None else ())
        second = iter(theirs.to_pylist() if theirs is not None else ())
        yield from self.rows(_then(first, expected), _then(second, found))

    def rows(self, expected: Rows, found: Rows) -> Iterator[Problem]:
        """Problems of a table row by row: which are lost, changed, or nobody's."""
        wanted = next(expected, None)
        for row in found:
            key = self._key(row)
            if key is None:
                yield self._problem(row, "is there, and belongs to no frame of the job")
                continue
            while wanted is not None and (self._key(wanted) or ()) < key:
                yield self._problem(wanted, "is not there")
                wanted = next(expected, None)
            if wanted is None or self._key(wanted) != key:
                if not self._excused(row["stack"], int(row["t"]), int(row["z"])):
                    yield self._problem(row, "is there, and nothing recorded has it")
                continue
            differing = [name for name in wanted if not _same(row.get(name), wanted[name])]
            if differing or row.keys() != wanted.keys():
                name = differing[0] if differing else "columns"
                known = f"{row.get(name)} instead of {wanted[name]}" if differing else "others"
                yield self._problem(row, f"is not as recorded: {name} is {known}")
            wanted = next(expected, None)
        while wanted is not None:
            yield self._problem(wanted, "is not there")
            wanted = next(expected, None)

    def _key(self, row: Row) -> Key | None:
        try:
            return (self._order[row["stack"]], *(int(row[name]) for name in self._keys))
        except (KeyError, TypeError, ValueError):
            return None

    def _problem(self, row: Row, what: str) -> Problem:
        key = self._key(row)
        if key is None:
            values = ", ".join(f"{name}={row.get(name)}" for name in ("stack", *self._keys))
            return Problem("table", self._path, f"the row of {values} {what}")
        name, (t, z) = row["stack"], key[1:3]
        what = f"the row of object {key[3]} {what}" if len(key) > 3 else f"the row {what}"
        return Problem("table", self._path, what, self._views[name].of_frame(t, z), name)


def _same(found: Any, wanted: Any) -> bool:
    return bool(found == wanted or (found != found and wanted != wanted))  # NaN is itself


def _then(first: Rows, batches: Iterator[pa.Table]) -> Rows:
    yield from first
    for batch in batches:
        yield from batch.to_pylist()


def _skip_equal(
    left: Iterator[pa.Table], right: Iterator[pa.Table]
) -> tuple[pa.Table | None, pa.Table | None]:
    """Go on to where two tables differ; what was read of each there, None at its end."""
    a, b = _next(left, None), _next(right, None)
    while a is not None and b is not None:
        n = min(a.num_rows, b.num_rows)
        if not a.slice(0, n).equals(b.slice(0, n)):
            break
        a, b = _next(left, a.slice(n)), _next(right, b.slice(n))
    return a, b


def _next(tables: Iterator[pa.Table], held: pa.Table | None) -> pa.Table | None:
    while held is None or not held.num_rows:
        held = next(tables, None)
        if held is None:
            return None
    return held


def parquet_batches(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """A table's rows in batches. ValueError where its columns are others."""
    with pq.ParquetFile(path) as file:
        if not file.schema_arrow.equals(schema):
            raise ValueError("its columns are not those that were written")
        for batch in file.iter_batches(batch_size=SLICE):
            yield pa.Table.from_batches([batch]).cast(schema)


def csv_rows(path: Path, columns: list[str]) -> Rows:
    """Rows of the CSV table, as text. ValueError where its columns are others."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        lines = csv.reader(file)
        if next(lines, None) != columns:
            raise ValueError("its columns are not those that were written")
        for values in lines:
            row = dict(zip(columns, values, strict=False))
            if len(values) != len(columns):
                row["a value too many or too few"] = str(len(values))
            yield row


def as_text(rows: Rows, columns: list[str]) -> Rows:
    """Rows as CSV holds them."""
    for row in rows:
        values = {name: row.get(name) for name in columns}
        yield {name: "" if value is None else str(value) for name, value in values.items()}


def row_batches(rows: Rows, schema: pa.Schema) -> Iterator[pa.Table]:
    """Rows of the frames table, in batches."""
    held: list[Row] = []
    for row in rows:
        held.append({name: row.get(name) for name in schema.names})
        if len(held) == tables.ROWS:
            yield pa.Table.from_pylist(held, schema=schema)
            held = []
    if held:
        yield pa.Table.from_pylist(held, schema=schema)
