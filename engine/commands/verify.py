"""`stackseg verify`: whether a job's output is what was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from engine.results.verify.run import Verdict


@click.command()
@click.argument("output", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
def verify(output: Path, as_json: bool) -> int:
    """Read a job's output again, and name whatever is lost or changed.

    Every shard is compared with its checksum, all tables, metadata and records with those in
    job.json, and labels with the objects that were measured. Inputs and model are not needed.
    Paths are relative to DIR. Nothing is written.

    \b
    Exit status: 0 all is as recorded
                 1 something is not, or the job is not complete
                 2 no job, or one that is running
    """
    import json

    from engine.results.verify.run import verify_job
    from engine.store.folder import added_jobs

    roots = [output, *added_jobs(output)]  # labels that were added have their own
    status, problems = 0, []
    for root in roots:
        verdict = verify_job(root)
        below = "" if root == output else root.relative_to(output).as_posix()
        problems += verdict.problems.to_list(below)
        _print(root, verdict, below, lines=not as_json, several=len(roots) > 1)
        status = max(status, verdict.exit_status)
    if as_json:
        click.echo(json.dumps(problems, indent=2))
    return status


def _print(root: Path, verdict: Verdict, below: str, *, lines: bool, several: bool) -> None:
    for line in verdict.problems.lines(below) if lines else ():
        click.echo(line)
    for line in verdict.leftovers:
        click.echo(f"stackseg: {line}", err=True)
    count = len(verdict.problems)
    if count:
        problems = "1 problem" if count == 1 else f"{count:,} problems"
        click.echo(
            f"stackseg: {root}: {problems}, where {verdict.counts()} were read; remove the files "
            "that are named, and run the same command again to have them made",
            err=True,
        )
    elif lines:
        where = f"{root}: " if several else ""
        click.echo(f"{where}{verdict.counts()}: all as recorded")
