"""`stackseg plan`: what `segment` would do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from engine.commands.grouped import grouped
from engine.commands.segment import GROUPS, job_options


@click.command(cls=grouped(GROUPS), short_help="Show frames, tiles, memory and disk of a job.")
@job_options
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", default=Path(),
              help="Ignored. To plan a `segment` command as it stands, add --dry-run to "
              "it.")  # fmt: skip
def plan(frames: str | None, **options: Any) -> int:
    """Show the stacks, frames, tiles, memory and disk of a job; nothing is written."""
    from engine.commands import running

    return running.show_plan(running.settings(frames=frames, **options))
