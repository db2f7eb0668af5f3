"""`stackseg export`: options only; the work is in `export.onnx`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Turn a training run into an ONNX model.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path), help="File to write.")
@click.option("--name", help="Name of the model  [default: that of OUTPUT]")
@click.option("--description", default="", help="A sentence about the model.")
@click.option("--checkpoint", default="best", show_default=True,
              type=click.Choice(["best", "last"]), help="Which epoch to export.")  # fmt: skip
def export(run: Path, output: Path, name: str | None, description: str, checkpoint: str) -> None:
    """Export the network of the training run RUN as an ONNX file with everything to run it.

    The file is written only if ONNX Runtime agrees with PyTorch on frames of three sizes.
    """
    from engine.errors import MissingExtra

    try:
        from export.onnx import export_run
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "torchvision", "onnxscript"):
            raise
        raise MissingExtra("stackseg export needs PyTorch: pip install 'stackseg[train]'") from None

    spec = export_run(run, output, name, checkpoint, description)
    size = output.stat().st_size / 1e6
    click.echo(
        f"{output}: {spec.name}, {size:.2f} MB, stride {spec.stride} px, "
        f"receptive radius {spec.receptive_radius} px",
        err=True,
    )
