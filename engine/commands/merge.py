"""`stackseg merge`: complete a job that `--shard` has done in parts."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("output", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--quiet", is_flag=True, help="No progress; warnings and errors only.")
def merge(output: Path, quiet: bool) -> int:
    """Complete a job whose shards are all done: stitch its labels, write its tables.

    The last shard does this by itself; merge is for when it was killed. The files are the same.
    """
    from engine.commands import running

    return running.merge(output, quiet=quiet)
