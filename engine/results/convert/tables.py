"""The tables of a job as CSV, batch by batch."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import StackError, first_line
from engine.store.tables import ROWS


def write_csv(path: Path, table: Path, stacks: Collection[str]) -> None:
    """Write the rows of `stacks` in a Parquet table as CSV; unknown values are empty."""
    try:
        with pq.ParquetFile(table) as file, path.open("w", newline="", encoding="utf-8") as out:
            lines = csv.writer(out, lineterminator="\n")
            lines.writerow(file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=ROWS):
                columns = [column.to_pylist() for column in batch.columns]
                names = batch.column("stack").to_pylist()
                rows = zip(names, zip(*columns, strict=True), strict=True)
                lines.writerows(row for name, row in rows if name in stacks)
    except (pa.ArrowException, FileNotFoundError) as error:
        first = first_line(error)
        raise StackError(
            f"{table}: cannot be read as a table ({first}); run the job's command again to write it"
        ) from error
