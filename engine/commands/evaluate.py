"""`stackseg evaluate`: score labels against a truth."""

from __future__ import annotations

import click


@click.command()
@click.argument("labels", type=click.Path())
@click.argument("truth", type=click.Path())
@click.option(
    "--ignore-border",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="PX",
    help="Leave out so many pixels along every side of a frame.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def evaluate(labels: str, truth: str, ignore_border: int, as_json: bool) -> None:
    """Score LABELS against TRUTH, frame by frame and pooled.

    Prints the foreground IoU and Dice, SEG of the Cell Tracking Challenge, and F1 of objects
    matched at IoU 0.5 to 0.9. Where the truth draws only some of the objects, as the challenge's
    gold truth does, only SEG means anything.

    LABELS and TRUTH are each a result of this command, a Zarr, a TIFF, a folder of TIFF or PNG
    images, or a Cell Tracking Challenge folder such as 01_ST. Frames are matched by number. Frames
    without a truth are left out; so is a truth before or after the frames of LABELS.
    """
    import json
    import sys

    from engine.score.compare import compare
    from engine.score.table import print_table

    comparison = compare(labels, truth, ignore_border)
    if as_json:
        click.echo(json.dumps(comparison.to_dict(), indent=2))
    else:
        print_table(comparison, sys.stdout)
    notes = [f"{len(comparison.frames)} frames compared"]
    if comparison.untrue:
        notes.append(f"{comparison.untrue} without a truth left out")
    if comparison.beyond:
        notes.append(f"{comparison.beyond} of the truth lie outside the result's frames")
    click.echo("; ".join(notes), err=True)
