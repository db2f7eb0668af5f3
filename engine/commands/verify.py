"""`stackseg verify`: whether a job's output is what was recorded."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("output", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
def verify(output: Path, as_json: bool) -> int:
    """Read a job's output again, and name whatever is lost or changed.

    Every block is held against its record and checksum; ids, counts and areas are counted again
    and held against the tables. Inputs and model need not be there. Writes nothing.

    \b
    Exit status: 0 all is as recorded
                 1 something is not, or the job is not complete
                 2 no job, or one that is running
    """
    import json

    from engine.verify.run import verify_job

    verdict = verify_job(output)
    if as_json:
        click.echo(json.dumps(verdict.problems.to_list(), indent=2))
    else:
        for line in verdict.problems.lines():
            click.echo(line)
    for line in verdict.leftovers:
        click.echo(f"stackseg: {line}", err=True)
    count = len(verdict.problems)
    if count:
        problems = "1 problem" if count == 1 else f"{count:,} problems"
        click.echo(
            f"stackseg: {output}: {problems}, where {verdict.counts()} were read; remove the files "
            "that are named, and run the same command again to have them made",
            err=True,
        )
    elif not as_json:
        click.echo(f"{verdict.counts()}: all as recorded")
    return verdict.exit_status
