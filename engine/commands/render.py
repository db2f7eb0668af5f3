"""`stackseg render`: a result as a movie or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


def _frames(context: click.Context, parameter: click.Parameter, value: str | None) -> slice | None:
    if not value:
        return None
    try:
        parts = [int(part) if part.strip() else None for part in value.split(":")]
    except ValueError:
        parts = []
    if len(parts) == 1 and parts[0] is not None and parts[0] >= 0:
        return slice(parts[0], parts[0] + 1)
    step = parts[2] if len(parts) == 3 else None
    if len(parts) not in (2, 3) or (step is not None and step < 1):
        raise click.BadParameter(f"{value!r} is not a selection such as 12, 0:60 or 0:600:10")
    return slice(*parts)


def _contrast(
    context: click.Context, parameter: click.Parameter, value: str
) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in value.split(","))
    except ValueError:
        low = high = -1.0
    if not 0 <= low < high <= 100:
        raise click.BadParameter(f"{value!r} is not a pair of percentiles such as 1,99.8")
    return low, high


@click.command(short_help="Draw a result as a movie or a picture.")
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path),
              metavar="FILE", help="Movie or picture to write: .mp4, .gif or .png.")  # fmt: skip
@click.option("--style", default="side-by-side", show_default=True,
              type=click.Choice(["side-by-side", "outlines", "fill", "probability"]),
              help="The image next to itself with outlines; outlines alone; translucent objects; "
                   "kept probabilities.")  # fmt: skip
@click.option("--stack", metavar="NAME", help="Stack to draw, where the result has several.")
@click.option("--labels", metavar="NAME", help="Label image, where a stack has several.")
@click.option("--frames", callback=_frames, metavar="N|A:B[:STEP]",
              help="Only these frames, half-open: along T, or Z where there is no T.")  # fmt: skip
@click.option("--z", metavar="N|max", help="Plane to draw, or the maximum over all planes  "
              "[default: the middle one; all in turn where there is no T]")  # fmt: skip
@click.option("--fps", type=click.FloatRange(min=0.1, max=120), default=10.0, show_default=True,
              metavar="N", help="Frames per second.")  # fmt: skip
@click.option("--channel", metavar="N|NAME",
              help="Channel to draw, named as for `stackseg segment`  "
                   "[default: the model's first]")  # fmt: skip
@click.option("--contrast", callback=_contrast, default="1,99.8", show_default=True,
              metavar="LOW,HIGH", help="Percentiles that are black and white.")  # fmt: skip
@click.option("--scale-bar", default="auto", show_default=True, metavar="auto|off|UM",
              help="Length of the scale bar in um; auto: one that suits the width.")  # fmt: skip
@click.option("--width", type=click.IntRange(min=16, max=16_000), metavar="PX",
              help="Width of a frame as drawn  [default: its own, within limits]")  # fmt: skip
@click.option("--image", type=click.Path(path_type=Path), metavar="PATH",
              help="The raw image, if it is neither kept nor where it was.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
def render(result: Path, **options: Any) -> None:
    """Draw RESULT: the image under one-pixel outlines, with scale bar and time.

    RESULT is a job's folder or a NAME.zarr in it. A .png shows one frame, by default the middle
    one; of several --frames it is a contact sheet.
    """
    from engine.job.progress import counter
    from engine.results.pictures.render import RenderSettings, render

    with counter("picture") as progress:
        render(result, RenderSettings(**options), progress)
    click.echo(options["output"])
