"""`stackseg relabel`: other labels from the probabilities that a job kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from engine.commands.segment import rule_options


@click.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--name", default="relabelled", show_default=True, metavar="NAME",
              help="Of the new label image, and of the folder of its tables.")  # fmt: skip
@rule_options("RESULT")
@click.option("--workers", type=int, metavar="N",
              help="Blocks in flight  [default: one per core]")  # fmt: skip
@click.option("--memory", metavar="SIZE",
              help="The most memory to use, such as 8GB  [default: most free]")  # fmt: skip
@click.option("--fresh", is_flag=True, default=None, help="Start over instead of going on.")
@click.option("--quiet", is_flag=True, help="No progress; warnings and errors only.")
@click.option("--json-log", type=click.Path(path_type=Path), metavar="FILE",
              help="Append a line of JSON per event.")  # fmt: skip
def relabel(result: Path, name: str, quiet: bool, json_log: Path | None, **options: Any) -> int:
    """Make new labels of RESULT from its kept probabilities, without the network.

    RESULT is the --output of a complete `stackseg segment --keep probability`. The new labels are
    a label image of their own in the same Zarr, labels/NAME; their tables are in
    RESULT/relabelled/NAME. Rules that are not given are those of RESULT.

    Probabilities are kept in 256 steps: labels are those of a fresh run but for pixels within
    1/510 of the threshold. A relabelling that was interrupted is gone on with by the same command.
    """
    from engine.commands import running

    return running.relabel(result, name, quiet=quiet, json_log=json_log, **options)
