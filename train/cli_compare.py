"""`stackseg compare`: options only; the work is in `train.compare`."""

from __future__ import annotations

from pathlib import Path

import click


def _frame(_: click.Context, __: click.Parameter, value: str) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in value.split("x"))
        if min(height, width) < 1:
            raise ValueError
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a size such as 700x1100") from None
    return height, width


@click.command(short_help="Set training runs side by side.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...",
                type=click.Path(path_type=Path))  # fmt: skip
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Write compare.csv and compare.png there.")  # fmt: skip
@click.option("--frame", default="700x1100", show_default=True, callback=_frame, metavar="YxX",
              help="Size of the frame that is timed, px.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace these two files if they exist.")
def compare(
    runs: tuple[Path, ...], output: Path | None, frame: tuple[int, int], overwrite: bool
) -> None:
    """Compare what `stackseg train` left in each RUN: one line each.

    Network, weights, epochs, training time; foreground IoU, loss, SEG, F1 of the best epoch (of
    classes, Dice instead of SEG and F1); and the time that a frame takes PyTorch on this machine.
    Scores are those of the test part if the run has one, otherwise of the validation part; the loss
    is that of the validation part.
    """
    from engine.commands.columns import print_columns
    from engine.errors import MissingExtra, install_command, plural
    from engine.store.files import check_free

    files = (output / "compare.csv", output / "compare.png") if output else ()
    for path in files:
        check_free(path, overwrite=overwrite)
    try:
        from train.compare import compare_runs, draw, footnotes, table, write_csv
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "torchvision", "matplotlib"):
            raise
        raise MissingExtra(f"stackseg compare needs PyTorch: {install_command('train')}") from None

    rows = compare_runs(runs, frame)
    notes = footnotes(rows, frame)
    header, lines = table(rows)
    print_columns(header, lines, left=2)
    for note in notes:
        click.echo(note, err=True)
    if files:
        write_csv(files[0], rows)
        draw(files[1], rows, notes)
        click.echo(f"{plural(len(rows), 'run')}: {files[0]}, {files[1]}", err=True)
