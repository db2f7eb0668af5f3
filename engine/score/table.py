"""A comparison as a table: with rich on a terminal, as plain columns elsewhere."""

from __future__ import annotations

from typing import TextIO

from engine.score.compare import Comparison
from engine.score.metrics import THRESHOLDS, Score

HEADER = ("objects", "truth", "IoU", "Dice", "SEG", *(f"F1@{at:g}" for at in THRESHOLDS))


def print_table(comparison: Comparison, out: TextIO) -> None:
    """A row per frame and a last one for all of them pooled."""
    rows = table(comparison)
    if out.isatty():
        _print_rich(rows, out)
    else:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)), file=out)


def table(comparison: Comparison) -> list[tuple[str, ...]]:
    """The table as text: a header, a row per frame, the pooled row."""
    deep = any(z for (_, z), _ in comparison.frames)
    rows: list[tuple[str, ...]] = [("frame", *HEADER)]
    for (t, z), score in comparison.frames:
        rows.append((f"{t}/{z}" if deep else str(t), *_cells(score)))
    return [*rows, ("pooled", *_cells(comparison.pooled))]


def _cells(score: Score) -> tuple[str, ...]:
    scores = (score.iou, score.dice, score.seg, *score.f1)
    shown = ("-" if s != s else f"{s:.4f}" for s in scores)  # NaN: not defined
    return (str(score.result_objects), str(score.truth_objects), *shown)


def _print_rich(rows: list[tuple[str, ...]], out: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for name in rows[0]:
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows[1:-1]:
        shown.add_row(*row)
    shown.add_section()
    shown.add_row(*rows[-1], style="bold")
    # A terminal that is too narrow wraps lines rather than cutting numbers short.
    needed = sum(2 + max(map(len, column)) for column in zip(*rows, strict=True))
    Console(file=out, width=max(Console(file=out).width, needed)).print(shown)
