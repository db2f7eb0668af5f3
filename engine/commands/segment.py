"""`stackseg segment`: the main job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]


def rule_options(result: str = "") -> Callable[[Command], Command]:
    """Options of what makes labels of probabilities.

    What is not given is the model's own or, where there is a `result` (as help texts name it),
    that of the result.
    """

    def default(without: str = "the model's") -> str:
        return f"  [default: {f'that of {result}' if result else without}]"

    options = [
        click.option("--threshold", type=float, metavar="P",
                     help="Probability from which a pixel is foreground" + default()),
        click.option("--instances", type=click.Choice(["components", "watershed", "none"]),
                     help="How objects are told apart: what touches is one, or is cut apart where "
                          "it is narrow; none: a class map" + default()),
        click.option("--min-area", metavar="PX|UM2",
                     help="Drop smaller objects: 30 or 12um2" + default()),
        click.option("--max-area", metavar="PX|UM2",
                     help="Drop objects larger than this: 3000 or 900um2; none keeps all"
                          + default("none")),
        click.option("--fill-holes/--no-fill-holes", default=None,
                     help="Background that an object encloses becomes part of it."),
        click.option("--clear-border/--no-clear-border", default=None,
                     help="Drop objects that touch the border of the frame."),
        click.option("--min-distance", metavar="PX|UM",
                     help="Between the seeds of a watershed: 6 or 2.5um" + default()),
        click.option("--seed-height", type=float, metavar="PX",
                     help="How far a seed of a watershed rises above the neck to a higher one, as "
                          "distance to the background" + default("1")),
    ]  # fmt: skip

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def job_options(command: Command) -> Command:
    """Options that `segment` and `plan` share."""
    options: list[Callable[[Command], Command]] = [
        click.argument("inputs", nargs=-1, required=True, metavar="INPUT..."),
        click.option("--model", required=True, help="An ONNX file, or a bundled model: nuclei."),
        click.option("--channel", metavar="N|NAME[,N...]",
                     help="Channels that feed the model, by number from 0 or by name; a name that "
                          "is a number or has a comma in double quotes: '\"DAPI, 405\"'."),
        click.option("--axes", metavar="TYX",
                     help="Axes of the inputs, where their metadata is silent or wrong."),
        click.option("--series", metavar="N|NAME|all|pages",
                     help="Image of a TIFF that holds several; pages: every page is a frame, "
                          "whatever the metadata say  [default: the largest, and those like it in "
                          "OME-TIFF]"),
        click.option("--frames", metavar="A:B",
                     help="Only these frames: half-open, along T, or Z where there is no T."),
        click.option("--missing-chunks", type=click.Choice(["fail", "background"]),
                     default="fail", show_default=True,
                     help="Whether a Zarr frame that has none of its chunks is set aside as "
                          "failed, or read as background."),
        rule_options(),
        click.option("--tile", default="auto", show_default=True, metavar="auto|N",
                     help="Side of a tile in px, halo included; auto: whole frames if they fit."),
        click.option("--halo", type=int, metavar="N",
                     help="Margin around a tile in px  [default: what the network can see]"),
        click.option("--connect", type=click.Choice(["none", "z"]), default="none",
                     show_default=True,
                     help="z: objects go on from plane to plane, corners included."),
        click.option("--keep", type=click.Choice(["probability"]),
                     help="Store 8-bit probabilities too: `stackseg relabel` works on them."),
        click.option("--with-image", is_flag=True,
                     help="Copy the raw stack into the result, with the same levels."),
        click.option("--workers", type=int, metavar="N",
                     help="Blocks in flight  [default: one per core]"),
        click.option("--memory", metavar="SIZE",
                     help="The most memory to use, such as 8GB  [default: most of what is free]"),
        click.option("--scheduler", metavar="ADDRESS|FILE",
                     help="Run on a Dask cluster  [default: in this process]"),
        click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]"),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _folder(context: click.Context, parameter: click.Parameter, value: str) -> Path:
    # An unset variable in a script must not turn into the current folder.
    if not value:
        raise click.BadParameter("is empty; give a folder, or . for the current one")
    return Path(value)


@click.command()
@job_options
@click.option(
    "--output",
    required=True,
    callback=_folder,
    metavar="DIR",
    help="Folder for labels and tables; an unfinished job in DIR is resumed.",
)
@click.option("--fresh", is_flag=True, help="Start over instead of going on.")
@click.option("--retry-failed", is_flag=True, help="Do the frames again that were set aside.")
@click.option(
    "--shard",
    metavar="I/N",
    help="Do one of N parts of the blocks; the last part to end completes the job.",
)
@click.option(
    "--grace",
    type=float,
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds that running blocks get after SIGTERM.",
)
@click.option(
    "--timeout",
    default="auto",
    show_default=True,
    metavar="SECONDS|auto|none",
    help="Seconds without progress after which a read is given up; a frame that does so twice is "
    "set aside. auto: 20 times the longest wait so far, at least 10 minutes and at most an hour; "
    "none: wait for ever.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop; writes nothing.")
@click.option("--sample", type=click.IntRange(min=1, max=100), metavar="N",
              help="Only look: segment N frames spread over the stacks, leave their overlays in "
                   "DIR/sample, and stop.")  # fmt: skip
@click.option("--quiet", is_flag=True, help="No progress; warnings and errors only.")
@click.option("--json-log", type=click.Path(path_type=Path), metavar="FILE",
              help="Append a line of JSON per event.")  # fmt: skip
def segment(
    dry_run: bool,
    sample: int | None,
    quiet: bool,
    json_log: Path | None,
    frames: str | None,
    **options: Any,
) -> int:
    """Segment stacks into OME-Zarr label volumes with per-frame measures.

    INPUT is a TIFF (multi-page, ImageJ, OME, BigTIFF), a folder of single-frame images, a PNG or
    JPEG, a Zarr array, an OME-Zarr image, or @list.txt with one of these on each line.

    \b
    Exit status: 0 done, or already complete
                 1 some stacks or frames failed, the rest is complete
                 2 wrong use, unusable model, or no input that can be opened
                 3 stopped midway: the disk is full, an input is gone; the same command goes on
                 130 interrupted; the same command goes on
    """
    from engine.commands import running

    settings = running.settings(frames=frames, **options)
    if dry_run:
        return running.show_plan(settings, for_output=True)
    if sample is not None:
        return running.sample(settings, sample, quiet=quiet)
    return running.segment(settings, quiet=quiet, json_log=json_log)
