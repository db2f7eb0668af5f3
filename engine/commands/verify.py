"""`stackseg verify`: whether a job's output is what was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from engine.results.verify.run import Verdict


@click.command(short_help="Check a result against its records and checksums.")
@click.argument("output", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
def verify(output: Path, as_json: bool) -> int:
    """Read a job's output again, and name whatever is lost or changed.

    Every shard is compared with its checksum, all tables, metadata and records with those in
    job.json, and labels with the objects that were measured. Inputs and model are not needed.
    Paths are relative to DIR. Nothing is written.

    \b
    Exit status: 0 everything is as recorded
                 1 something is not, or the job is not complete
                 2 no job, or one that is running
    """
    import json

    from engine.results.verify.run import verify_job
    from engine.store.folder import added_jobs

    roots = [output, *added_jobs(output)]  # labels that were added have a job of their own
    status, problems = 0, []
    for root in roots:
        verdict = verify_job(root)
        below = "" if root == output else root.relative_to(output).as_posix()
        problems += verdict.problems.to_list(below)
        if not as_json:
            _show(verdict, below, f"{root}: " if len(roots) > 1 else "")
        _show_errors(root, verdict)
        status = max(status, verdict.exit_status)
    if as_json:
        click.echo(json.dumps(problems, indent=2))
    return status


def _show(verdict: Verdict, below: str, prefix: str) -> None:
    for line in verdict.problems.lines(below):
        click.echo(line)
    if not len(verdict.problems):
        click.echo(f"{prefix}{verdict.counts()}: all as recorded")


def _show_errors(root: Path, verdict: Verdict) -> None:
    for line in verdict.leftovers:
        click.echo(f"stackseg: {line}", err=True)
    count, unfinished = len(verdict.problems), verdict.problems.of_kind("unfinished")
    if count and count == unfinished:
        click.echo(
            f"stackseg: {root}: its job is not complete; what it has written is as recorded, and "
            "the same command resumes it",
            err=True,
        )
    elif count:
        click.echo(
            f"stackseg: {root}: {count:,} problem{'s' if count > 1 else ''} in {verdict.counts()}; "
            "remove the files that are named, and run the same command again to have them made",
            err=True,
        )
