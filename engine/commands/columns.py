"""Rows of text in columns on stdout, as several commands print them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

WIDE = 1 << 16  # characters; a narrower terminal wraps lines rather than cut numbers short


def print_columns(header: Sequence[str], *parts: Sequence[Sequence[str]], left: int = 0) -> None:
    """Print rows below a header, the first `left` columns flush left, the others right.

    The header is bold on a terminal; so is the last of several parts.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for n, name in enumerate(header):
        table.add_column(name, justify="left" if n < left else "right", no_wrap=True)
    for part in parts:
        for row in part:
            table.add_row(*row, style="bold" if part is parts[-1] is not parts[0] else "")
    console = Console(file=sys.stdout, width=WIDE, markup=False, emoji=False, highlight=False)
    console.print(table)
