"""`stackseg evaluate`: score labels against a truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from engine.results.score.comparison import Comparison


@click.command(short_help="Score labels against a truth.")
@click.argument("labels", type=click.Path())
@click.argument("truth", type=click.Path())
@click.option(
    "--ignore-border",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="PX",
    help="Ignore a margin of this width along every side of a frame.",
)
@click.option(
    "--classes", is_flag=True, help="Both are class maps, even without metadata that say so."
)
@click.option(
    "--palette",
    metavar="FILE|NAME",
    help="Colours of TRUTH are classes, by this palette: a YAML or JSON file, "
    "acdc, heart-ct or binary.",
)
@click.option(
    "--volumes",
    is_flag=True,
    help="Objects continue from plane to plane: score whole time points.",
)
@click.option(
    "--masks",
    is_flag=True,
    help="TRUTH is masks of foreground, not ids: objects are their 8-connected pieces.",
)
@click.option(
    "--group",
    metavar="REGEX",
    help="Pool frames whose file names agree in this, as those of a patient. Named brackets, "
    "(?P<patient>...) and (?P<phase>...), are all compared. Class maps with names as in ACDC "
    "are pooled by patient and phase without it.",
)
@click.option(
    "--spacing",
    metavar="MM,...",
    help="Size of a voxel in mm, as Y,X or Z,Y,X, if not as the metadata say. With Z, frames of "
    "a group are the slices of a volume, in the order of their names.",
)
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.png",
    help="Draw the worst three frames: objects found, missed and spurious.",
)
@click.option(
    "--image",
    type=click.Path(),
    metavar="STACK",
    help="Image to draw them over, if not the result's recorded input.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.csv",
    help="Write the scores of every frame as CSV.",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE.csv and FILE.png if they exist.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def evaluate(
    labels: str,
    truth: str,
    picture: Path | None,
    image: str | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Score LABELS against TRUTH, frame by frame and pooled.

    Prints the foreground IoU and Dice; SEG, DET and OP_CSB of the Cell Tracking Challenge; and F1
    and AP of objects matched at IoU 0.5 to 0.9. Of class maps, Dice, IoU, 95 % Hausdorff distance
    and volume error of each class, by patient and phase if --group tells them. Where the truth
    draws only some of the objects, as the challenge's gold truth does, only SEG means anything, and
    DET where the truth has markers (01_GT/TRA).

    LABELS and TRUTH are each a result of a job, a Zarr, a TIFF, a folder of TIFF or PNG
    images, or a Cell Tracking Challenge folder such as 01_ST. Frames are matched by number, files
    without numbers by name. Where LABELS holds the results of several stacks, TRUTH is a folder
    with the truth of each by the stack's name. Frames without a truth are omitted; so is a truth
    before or after the frames of LABELS.
    """
    import json

    from engine.errors import UsageError, plural
    from engine.results.score.compare import compare
    from engine.results.score.table import hints, notes, write_csv
    from engine.store.files import check_free

    if picture and picture.suffix.lower() != ".png":
        raise UsageError(f"--picture {picture}: give a name that ends in .png")
    for path in (output, picture):
        if path:
            check_free(path, overwrite=overwrite)
    comparison = compare(labels, truth, **how)
    for line in hints(comparison):
        click.echo(f"stackseg: {line}", err=True)
    if as_json:
        click.echo(json.dumps(comparison.to_dict(), indent=2))
    else:
        _print_tables(comparison)
    for line in notes(comparison):
        click.echo(line, err=True)
    if output:
        write_csv(comparison, output)
        click.echo(f"scores of {plural(len(comparison.frames), 'frame')}: {output}", err=True)
    if picture:
        from engine.results.score.picture import draw_worst

        for line in draw_worst(comparison, picture, image):
            click.echo(line, err=True)


def _print_tables(comparison: Comparison) -> None:
    """Print scores of frames, and those of classes; on stderr the columns that do not fit."""
    from engine.commands.columns import print_columns
    from engine.results.score.table import READ_FIRST, class_table, table
    from engine.stacks.guard import some

    (header,), *parts = table(comparison)
    omitted = print_columns(header, *parts, first=READ_FIRST)
    if by_class := class_table(comparison):
        (header,), *parts = by_class
        click.echo()
        omitted += print_columns(header, *parts, left=2, first=header)
    if omitted:
        click.echo(
            f"the terminal is too narrow for {some(omitted)}; --json or a pipe (| less -S) shows "
            "all columns",
            err=True,
        )
