"""`stackseg crop`: the region of interest of a class, out of image and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command(short_help="Cut the region around a class out of a result.")
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--class", "class_name", required=True, metavar="NAME",
              help="Class to cut out, by its name; `foreground` for all of them.")  # fmt: skip
@click.option("--margin", default="0px", show_default=True, metavar="PX|MM",
              help="Margin on all sides: 10px (along Y and X), or 5mm or 20um (also along Z), "
                   "where pixel sizes are known.")  # fmt: skip
@click.option("--per-slice", is_flag=True,
              help="A box for each slice that has the class, instead of one for the whole "
                   "stack.")  # fmt: skip
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="DIR",
              help="Folder to write to.")  # fmt: skip
@click.option("--stack", metavar="NAME", help="Only this stack of the result.")
@click.option("--labels", metavar="NAME", help="Label image, where a stack has several.")
@click.option("--overwrite", is_flag=True, help="Replace earlier crops.")
def crop(result: Path, class_name: str, margin: str, output: Path, **options: Any) -> None:
    """Cut the region of interest of a class out of RESULT, a job's folder or a NAME.zarr in it.

    Writes DIR/NAME.zarr for each stack, an OME-Zarr of image and labels within one box around the
    class in all planes and time points. With --per-slice there is one for each slice, such as
    DIR/NAME_z003.zarr. The image is read again from where the job found it. Viewers show a crop
    at its place in the whole.

    \b
    Exit status: 0 crops were written
                 1 no stack has the class, or a frame of the image cannot be read
    """
    from engine.job.progress import counter
    from engine.results.crop.run import crop

    with counter("crop") as progress:
        paths = crop(result, class_name, margin, output, progress=progress, **options)
    for path in paths:
        click.echo(path)
