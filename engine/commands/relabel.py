"""`stackseg relabel`: other labels from the probabilities that a job kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from engine.commands.segment import log_options, postprocessing_options, resource_options


@click.command(short_help="Make other labels of a result, without the network.")
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--name", default="relabelled", show_default=True, metavar="NAME",
              help="Name of the new label image, and of the folder of its tables.")  # fmt: skip
@postprocessing_options("RESULT")
@resource_options
@click.option("--fresh", is_flag=True, default=None, help="Start over instead of resuming.")
@log_options
def relabel(result: Path, name: str, quiet: bool, json_log: Path | None, **options: Any) -> int:
    """Make new labels of RESULT from its kept probabilities, without the network.

    RESULT is the --output of a complete `stackseg segment --keep probability`. The new labels are
    a label image of their own in the same Zarr, labels/NAME; their tables are in
    RESULT/relabelled/NAME. Options that are omitted are those of RESULT.

    Probabilities are kept in 256 steps: the labels are those of a new run but for pixels within
    1/510 of the threshold. Run the same command again to resume a relabelling that was interrupted.
    """
    from engine.commands import running

    return running.relabel(result, name, quiet=quiet, json_log=json_log, **options)
