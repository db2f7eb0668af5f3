"""Tables in columns: all of them in a pipe, what fits on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from engine.commands.columns import print_columns

HEADER, ROW = ("frame", "IoU", "Dice", "SEG"), ("0", "0.5", "0.6667", "0.4")


def printed(
    monkeypatch: pytest.MonkeyPatch, width: int, *first: str, terminal: bool = True
) -> tuple[list[list[str]], list[str]]:
    """The words of each line, and the columns that were omitted."""
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "dumb")  # without colours
    omitted = print_columns(HEADER, [ROW], first=first)
    lines = out.getvalue().splitlines()
    assert not first or not terminal or all(len(line.rstrip()) <= width for line in lines)
    return [line.split() for line in lines], omitted


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (23, ["frame", "IoU", "Dice", "SEG"]),
        (22, ["frame", "IoU", "SEG"]),
        (15, ["frame", "IoU", "SEG"]),
        (14, ["frame", "SEG"]),
        (5, ["frame"]),
    ],
)
def test_a_narrow_terminal_shows_what_is_read_first(
    monkeypatch: pytest.MonkeyPatch, width: int, shown: list[str]
) -> None:
    """Seventeen columns of scores had each line of a terminal go on in a second one."""
    (header, row), omitted = printed(monkeypatch, width, "frame", "SEG")
    assert header == shown and omitted == [name for name in HEADER if name not in shown]
    assert row == [ROW[HEADER.index(name)] for name in shown]


def test_pipes_and_tables_without_an_order_have_all_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for how in ({"terminal": False}, {}):
        first = ("SEG",) if how else ()
        assert printed(monkeypatch, 5, *first, **how) == ([[*HEADER], [*ROW]], [])
