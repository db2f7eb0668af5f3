"""The tables at the end of a job, each held against all records or parts."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from engine.results.verify.problems import Problem
from engine.results.verify.tables import (
    TableCheck,
    as_text,
    csv_rows,
    parquet_batches,
    row_batches,
)
from engine.results.verify.view import Group, StackView
from engine.store import tables
from engine.store.folder import JobFolder

UNREADABLE = (OSError, ValueError, LookupError, csv.Error, pa.ArrowException)


class FinalTables:
    """frames.parquet, frames.csv, objects.parquet and timings.parquet."""

    def __init__(
        self,
        folder: JobFolder,
        views: list[StackView],
        unknown: set[tuple[str, int]],  # stack and number of groups that lack rows or objects
        classes: list[str],  # names of a class map's
    ) -> None:
        self._root, self._views, self._unknown = folder.root, views, unknown
        self._frames = tables.frames_schema(classes)

    def check(self) -> Iterator[Problem]:
        """Problems of all tables."""
        root, schema = self._root, self._frames
        most = max((view.measured_channels for view in self._views), default=0)
        objects = tables.objects_schema(most)
        name = "frames.parquet"
        expected = row_batches(self._rows(), schema)
        check = self._check_of(name, "t", "z")
        yield from _guarded(name, check.batches, expected, parquet_batches(root / name, schema))
        name = "frames.csv"
        text = as_text(self._rows(), schema.names)
        check = self._check_of(name, "t", "z")
        yield from _guarded(name, check.rows, text, csv_rows(root / name, schema.names))
        name = "objects.parquet"
        parts = self._parts(objects)
        check = self._check_of(name, "t", "z", "label")
        yield from _guarded(name, check.batches, parts, parquet_batches(root / name, objects))
        name = "timings.parquet"
        batches = parquet_batches(root / name, tables.timings_schema())
        yield from _guarded(name, _read_through, batches)

    def _check_of(self, name: str, *keys: str) -> TableCheck:
        excused = {
            (view.name, frame)
            for view in self._views if self._unknown
            for group in view.groups()
            if (view.name, group.index) in self._unknown
            for frame in group.frames
        }  # fmt: skip
        return TableCheck(name, self._views, keys, lambda stack, t, z: (stack, (t, z)) in excused)

    def _known(self) -> Iterator[tuple[StackView, Group]]:
        for view in self._views:
            for group in view.groups():
                if (view.name, group.index) not in self._unknown:
                    yield view, group

    def _rows(self) -> Iterator[dict[str, Any]]:
        for view, group in self._known():
            for row in (view.folder.read_json(group.record) or {}).get("frames", ()):
                yield {**row, "stack": view.name}

    def _parts(self, schema: pa.Schema) -> Iterator[pa.Table]:
        for view, group in self._known():
            own = tables.objects_schema(view.measured_channels)
            for batch in parquet_batches(group.part, own):
                yield tables.widened(batch, schema)


def _read_through(batches: Iterator[pa.Table]) -> Iterator[Problem]:
    """No problems of a table that nothing recorded has to agree with, if it can be read."""
    for _ in batches:
        pass
    yield from ()


def _guarded(
    name: str, check: Callable[..., Iterator[Problem]], *sources: Iterator[Any]
) -> Iterator[Problem]:
    """Problems that a check finds, and that a table is gone or cannot be read."""
    try:
        yield from check(*sources)
    except FileNotFoundError:
        yield Problem("table", name, "is gone")
    except UNREADABLE as error:
        first = str(error).partition("\n")[0]
        yield Problem("table", name, f"cannot be read ({first})")
