"""`stackseg merge`: complete a job that a job array has done in parts."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Complete a job whose array tasks have all ended.")
@click.argument("output", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--quiet", is_flag=True, help="Show warnings and errors only, no progress.")
def merge(output: Path, quiet: bool) -> int:
    """Complete a job whose array tasks have all ended: stitch its labels, write its tables.

    The last task does this by itself; merge is for when that task was killed. The files are the
    same either way.
    """
    from engine.commands import running

    return running.merge(output, quiet=quiet)
