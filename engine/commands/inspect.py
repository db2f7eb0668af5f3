"""`stackseg inspect`: what a model, a stack or a result holds."""

from __future__ import annotations

import click


@click.command()
@click.argument("target", metavar="MODEL|STACK|RESULT")
@click.option("--axes", metavar="TYX", help="Axes of a stack, where its metadata lack them.")
@click.option(
    "--series", metavar="N|NAME|all|pages", help="Image of a TIFF, or series of a folder."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(target: str, axes: str | None, series: str | None, as_json: bool) -> None:
    """Show what a model, a stack or a job's result holds.

    A model is an ONNX file or a bundled name; a result is the --output of a job.
    """
    from engine.results.inspection import describe, lines

    content = describe(target, axes, series)
    if as_json:
        import json

        click.echo(json.dumps(content, indent=2))
        return
    for line in lines(content):
        click.echo(line)
