"""`stackseg export`: options only; the work is in `export.onnx` and `export.lower`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from engine.model.spec import ModelSpec


@click.command(short_help="Turn a training run into an ONNX model.")
@click.argument("run", metavar="RUN|MODEL")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="File to write.")
@click.option("--name", help="Name of the model  [default: that of OUTPUT]")
@click.option("--description", default="", help="A sentence about the model.")
@click.option(
    "--checkpoint",
    default="best",
    show_default=True,
    type=click.Choice(["best", "last"]),
    help="Which epoch to export.",
)
@click.option(
    "--precision",
    default="fp32",
    show_default=True,
    type=click.Choice(["fp32", "fp16", "int8"]),
    help="What the file computes in; fp16 and int8 take a MODEL too.",
)
@click.option(
    "--frames",
    multiple=True,
    metavar="STACK",
    help="Stack whose frames calibrate int8, and judge fp16 and int8; may be repeated.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=2, max=1000),
    default=16,
    show_default=True,
    metavar="N",
    help="Frames to take, spread over the stacks; of int8 half calibrate.",
)
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Decides which frames calibrate and which judge.",
)
@click.option("--channel", metavar="CHANNELS", help="Channels of the stacks that feed the model.")
@click.option(
    "--fine-tune",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="STEPS",
    help="Let the weights learn to be rounded to int8, by the frames that calibrate.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def export(
    run: str,
    output: Path,
    name: str | None,
    description: str,
    checkpoint: str,
    precision: str,
    frames: tuple[str, ...],
    sample: int,
    seed: int,
    channel: str | None,
    fine_tune: int,
    overwrite: bool,
) -> None:
    """Export the network of the training run RUN as an ONNX file with everything to run it.

    The file is written only if ONNX Runtime agrees with PyTorch on frames of three sizes. In fp16
    or int8 it is written only if its labels agree with fp32: F1 of 0.99 or more, at IoU 0.9, on
    frames that did not calibrate it. An exported or bundled MODEL can be turned into these as well.
    """
    import tempfile

    from engine.errors import UsageError
    from export.lower import Sampling, lower

    lowered = precision != "fp32"
    sampling = Sampling(frames, sample, seed, channel, fine_tune)
    if lowered and not frames:
        raise UsageError(f"--precision {precision}: needs --frames STACK, by which it is judged")
    if frames and not lowered:
        raise UsageError("--frames: is for --precision int8 and fp16")
    if fine_tune and precision != "int8":
        raise UsageError("--fine-tune: is for --precision int8")
    _check(run, output, name, lowered=lowered, overwrite=overwrite)
    if Path(run).is_dir() or not lowered:
        with tempfile.TemporaryDirectory(prefix="stackseg-export-") as folder:
            path = Path(folder) / output.name if lowered else output
            spec = _from_run(Path(run), path, name, checkpoint, description)
            if lowered:
                spec = lower(str(path), precision, output, sampling, name, run)
    else:
        spec = lower(run, precision, output, sampling, name)
    size = output.stat().st_size / 1e6
    click.echo(
        f"{output}: {spec.name}, {size:.2f} MB, stride {spec.stride} px, "
        f"receptive radius {spec.receptive_radius} px",
        err=True,
    )


def _check(run: str, output: Path, name: str | None, *, lowered: bool, overwrite: bool) -> None:
    """Before anything is computed: refuse a model in place of a run, and what cannot be written."""
    import re

    from engine.errors import UsageError
    from engine.model.file import bundled_models
    from engine.model.spec import NAME
    from engine.store.files import check_file

    is_model = Path(run).is_file() or run in bundled_models()
    if is_model and not lowered and not Path(run).is_dir():
        raise UsageError(
            f"{run}: is not the folder of a training run; to make a model of another one, give "
            "--precision int8 or fp16"
        )
    if not re.fullmatch(NAME, name or output.stem):
        given = f"--name {name}" if name else f"{output}: its name, {output.stem!r},"
        raise UsageError(
            f"{given} cannot be a model's; give a --name of letters, digits, dots, dashes and "
            "underscores that starts with a letter or digit"
        )
    if Path(run).is_file() and output.exists() and output.samefile(run):
        raise UsageError(f"{output}: is the model itself; give another --output")
    check_file(output, overwrite=overwrite)


def _from_run(
    run: Path, output: Path, name: str | None, checkpoint: str, description: str
) -> ModelSpec:
    from engine.errors import MissingExtra, install_command

    try:
        from export.onnx import export_run
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "torchvision", "onnxscript"):
            raise
        raise MissingExtra(f"stackseg export needs PyTorch: {install_command('train')}") from None
    return export_run(run, output, name, checkpoint, description)
