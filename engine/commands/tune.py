"""`stackseg tune`: options only; the work is in `engine.tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from engine.job.tuned import Measured


@click.command(short_help="Find the fastest runtime and precision on this machine.")
@click.argument("model")
@click.argument("inputs", nargs=-1, required=True, metavar="STACK...")
@click.option(
    "--sample",
    type=click.IntRange(min=1, max=100),
    default=8,
    show_default=True,
    metavar="N",
    help="Frames to compare, spread over the stacks.",
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]")
@click.option(
    "--channel", metavar="CHANNELS", help="Channels that feed the model, as for `stackseg segment`."
)
@click.option("--axes", metavar="TYX", help="Axes of the stacks, where their metadata lack them.")
@click.option(
    "--series", metavar="N|NAME|all|pages", help="Image of a TIFF, or series of a folder."
)
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Frames in the network at a time  [default: as many as a job would have]",
)
@click.option("--memory", metavar="SIZE", help="The most memory that a job may use, such as 8GB.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def tune(model: str, sample: int, as_json: bool, **options: Any) -> int:
    """Find the fastest runtime and precision for a model on this machine.

    Every runtime and precision that works here segments frames of the STACKs. The table shows
    frames/s through the network, the pixels that differ from float32, F1 of the labels against
    float32 (objects with an IoU of 0.9 or more are the same; of class maps, pixels of the worst
    class) and peak memory. `stackseg segment --precision fast` takes the fastest with an F1 of
    0.99 or more from then on, for this model and machine. The exit status is 1 where a STACK cannot
    be opened.
    """
    from engine.commands.columns import print_columns
    from engine.errors import StackError, plural
    from engine.job.progress import counter
    from engine.job.tuned import keep
    from engine.plan.settings import job_settings
    from engine.tune.run import tune as measure

    given = {name: value for name, value in options.items() if value is not None}
    with counter("measurement") as progress:
        found = measure(job_settings(model=model, output=Path(), **given), sample, progress)
    tuned = found.tuned
    if as_json:
        click.echo(tuned.model_dump_json(indent=1))
    else:
        print_columns(FIELDS, [_fields(one) for one in tuned.measured], left=1)
    for reason in found.refused:
        _note(reason)
    for one in tuned.measured:
        if one.reason:
            _note(f"{one.runtime} {one.precision} does not work here: {one.reason}")
    frames = plural(tuned.frames, "frame")
    if not tuned.choices:
        raise StackError(
            f"nothing was kept: {frames} looked at, without any object by which labels "
            "could be compared; give frames with objects"
        )
    path = keep(found.model, found.targets, tuned)
    best = tuned.choices[0]
    counted = f", {plural(tuned.objects, 'object')}" if tuned.objects else ""
    _note(
        f"on {frames}{counted}, {tuned.workers} at a time: --precision fast is "
        f"--runtime {best.runtime} --precision {best.precision} from now on ({path})"
    )
    return 1 if found.refused else 0


FIELDS = ("setting", "frames/s", "pixels that differ", "F1 at 0.9", "memory MB", "labels")


def _fields(one: Measured) -> tuple[str, ...]:
    device = "" if one.device == "cpu" else f" {one.device}"
    setting = f"{one.runtime}{device} {one.precision}"
    if one.reason:
        return setting, "", "", "", "", "failed"
    f1 = "" if one.f1 is None else f"{one.f1:.4f}"
    verdict = "agree" if one.agrees else "differ" if f1 else "no objects"
    speed, memory = f"{one.frames_per_second:.2f}", f"{one.memory_bytes / 2**20:,.0f}"
    return setting, speed, f"{one.changed:.4%}", f1, memory, verdict


def _note(text: str) -> None:
    click.echo(f"stackseg: {text}", err=True)
