"""Rows of text in columns on stdout, as several commands print them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

WIDE = 1 << 16  # characters; a narrower terminal wraps lines rather than cut numbers short
GAP = 2  # characters behind a column
Row = Sequence[str]


def print_columns(
    header: Row, *parts: Sequence[Row], left: int = 0, first: Sequence[str] = ()
) -> list[str]:
    """Print rows below a header, the first `left` columns flush left, the others right.

    The header is bold on a terminal; so is the last of several parts. On a terminal that is too
    narrow, columns are omitted where `first` says which are read first: the others go before
    these, the last ones before those ahead of them. Returns the names of the omitted.
    """
    from rich.console import Console
    from rich.table import Table

    shown = list(range(len(header)))
    if first and sys.stdout.isatty():
        rows = [header, *(row for part in parts for row in part)]
        shown = _that_fit(rows, first, shutil.get_terminal_size().columns)
    table = Table(box=None, header_style="bold", padding=(0, GAP, 0, 0), pad_edge=False)
    for n in shown:
        table.add_column(header[n], justify="left" if n < left else "right", no_wrap=True)
    for part in parts:
        for row in part:
            style = "bold" if part is parts[-1] is not parts[0] else ""
            table.add_row(*(row[n] for n in shown), style=style)
    console = Console(file=sys.stdout, width=WIDE, markup=False, emoji=False, highlight=False)
    console.print(table)
    return [name for n, name in enumerate(header) if n not in shown]


def _that_fit(rows: Sequence[Row], first: Sequence[str], width: int) -> list[int]:
    """Numbers of the columns that fit into so many characters, and of the first in any case."""
    from rich.cells import cell_len

    header = rows[0]
    rank = {name: n for n, name in enumerate(first)}
    order = sorted(range(len(header)), key=lambda n: rank.get(header[n], len(first)))
    shown: list[int] = []
    left = width + GAP  # the last column needs no gap
    for n in order:
        left -= max(cell_len(row[n]) for row in rows) + GAP
        if shown and left < 0:
            break
        shown.append(n)
    return sorted(shown)
