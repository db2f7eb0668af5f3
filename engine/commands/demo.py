"""`stackseg demo`: a time-lapse from nothing to labels, scores and a movie."""

from __future__ import annotations

import re
from pathlib import Path

import click

MAX_PIXELS = 10**8


def _size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    """Rows and columns from "700x1100"."""
    size = re.fullmatch(r"(\d+)x(\d+)", value.strip().lower())
    if not size or min(int(size[1]), int(size[2])) < 1:
        raise click.BadParameter(f"{value!r} is no size such as 700x1100 (rows x columns)")
    if int(size[1]) * int(size[2]) > MAX_PIXELS:
        raise click.BadParameter(f"{value!r} is more than {MAX_PIXELS:,} pixels")
    return int(size[1]), int(size[2])


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    metavar="DIR",
    help="Folder for everything the demo makes.",
)
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    metavar="N",
    help="Frames of the time-lapse.",
)
@click.option(
    "--size",
    callback=_size,
    default="700x1100",
    show_default=True,
    metavar="HxW",
    help="Rows and columns of a frame.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="The same seed makes the same time-lapse.",
)
@click.option(
    "--model", default="nuclei", show_default=True, help="An ONNX file, or a bundled model."
)
@click.option("--workers", type=click.IntRange(min=1), metavar="N",
              help="Blocks in flight  [default: one per core]")  # fmt: skip
def demo(
    output: Path, frames: int, size: tuple[int, int], seed: int, model: str, workers: int | None
) -> int:
    """Make a synthetic time-lapse of nuclei, segment it, and score it against its truth.

    Prints the names of the files it makes, and a short table. An earlier demo in DIR is replaced.
    """
    from engine.demo import run_demo, table

    done = run_demo(output, (frames, *size), seed, model, workers)
    if done.scores is not None:
        named = {
            "time-lapse": done.files.timelapse,
            "truth": done.files.truth,
            "labels": done.summary.stacks[0],
            "tables": done.files.result / "frames.csv",
            "picture": done.files.overlay,
            "movie": done.files.movie,
        }
        for name, path in named.items():
            click.echo(f"{name:<14}{path}")
        click.echo()
        for name, value in table(done):
            click.echo(f"{name:<14}{value:>8}")
    return done.exit_status
