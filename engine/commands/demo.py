"""`stackseg demo`: a time-lapse from nothing to labels, scores and a movie."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import click

MAX_PIXELS = 10**8


def _size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    """Rows and columns from "700x1100"."""
    size = re.fullmatch(r"(\d+)x(\d+)", value.strip().lower())
    if not size or min(int(size[1]), int(size[2])) < 1:
        raise click.BadParameter(f"{value!r} is not a size such as 700x1100 (rows x columns)")
    if int(size[1]) * int(size[2]) > MAX_PIXELS:
        raise click.BadParameter(f"{value!r} is more than {MAX_PIXELS:,} pixels")
    return int(size[1]), int(size[2])


@click.command(short_help="Make, segment and score a synthetic time-lapse of nuclei.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    metavar="DIR",
    help="Folder for all files of the demo.",
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

    Prints the names of the files it writes, and a short table. An earlier demo in DIR is replaced.
    """
    from engine.demo import run_demo

    done = run_demo(output, (frames, *size), seed, model, workers)
    if done.scores is not None:
        for name, path in done.files.items():
            click.echo(f"{name:<14}{path}")
        click.echo()
        for name, value in done.table.items():
            click.echo(f"{name:<14}{value:>8}")
        command = f"{_command()} segment FRAMES.tif --model {model} --output result"
        click.echo(f"\nyour own frames: {command}", err=True)
    return done.summary.exit_status


def _command() -> str:
    """How this command is called from here: by its name alone where the shell finds it."""
    called = Path(sys.argv[0])
    if called.name != "stackseg" or shutil.which("stackseg") == str(called.absolute()):
        return "stackseg"
    return os.path.relpath(called)
