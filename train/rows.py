"""Rows of a run's tables, and how they become CSV and come back."""

from __future__ import annotations

import csv
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, TypeVar

from engine.store.files import whole_file

WHOLE = ("epoch", "step")  # columns of whole numbers
Note = Callable[[str], None]  # gets what a user should know, in words


class TableRow:
    """A row whose columns are its fields. Subclasses are dataclasses."""

    def as_row(self) -> dict[str, float]:
        """Values by column."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_row(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `as_row`."""
        return cls(**values)


class EpochRow(TableRow, ABC):
    """What every row of history.csv has."""

    epoch: int  # from 1
    step: int  # optimiser steps done
    lr: float  # learning rate of the last step
    train_loss: float
    val_loss: float

    @abstractmethod
    def in_words(self) -> str:
        """The figures, for a line on the screen."""


Row = TypeVar("Row", bound=TableRow)


def write_rows(path: Path, rows: Sequence[TableRow]) -> None:
    """Write all rows so far; a kill leaves the file as it was."""
    with whole_file(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0].as_row()))
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _as_text(value) for name, value in row.as_row().items()})


def as_written(row: Row) -> Row:
    """The row as a file gives it back, for whatever must be the same after resuming."""
    return type(row).from_row({k: _number(k, _as_text(v)) for k, v in row.as_row().items()})


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """The rows of a history.csv or a timings.csv."""
    with path.open(newline="") as file:
        return [
            kind.from_row({k: _number(k, v) for k, v in row.items()})
            for row in csv.DictReader(file)
        ]


def figure(score: float) -> str:
    """A score, or a dash where it is not defined."""
    return f"{score:.3f}" if score == score else "-"


def _as_text(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _number(name: str, text: str) -> float:
    return int(text) if name in WHOLE else float(text or "nan")
