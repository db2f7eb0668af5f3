"""`stackseg train`: options only; the work is in `train.fit`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.commands.grouped import grouped
from engine.errors import INTERRUPTED
from train.presets import PRESETS

if TYPE_CHECKING:
    from train.rows import EpochRow
    from train.settings import TrainSettings

# px; the challenge's HeLa truth ends 25 px inside.
DEFAULT_BORDER = {"ctc": 25, "pairs": 0, "color-masks": 0}
DEFAULT_TEST = {"ctc": 0.0, "pairs": 0.2, "color-masks": 0.2}
DEFAULT_PRESET = {"ctc": "nuclei", "pairs": "nuclei", "color-masks": "heart-small"}
# What suits the classes of slices, whatever the network.
OF_CLASSES: dict[str, Any] = {"augment": "upright", "dice": 1.0, "ema": 0.99}


def _numbers(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not a list of whole numbers such as 16,32,64,128"
        ) from None


def _weights(
    _: click.Context, __: click.Parameter, value: str | None
) -> str | tuple[float, ...] | None:
    if value is None or value == "auto":
        return value
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither auto nor a list of numbers such as 1,4,4,4"
        ) from None


def _unfreeze(
    _: click.Context, __: click.Parameter, value: str | None
) -> tuple[tuple[int, int], ...] | None:
    if value is None:
        return None
    try:
        pairs = [part.split(":") for part in value.split(",")]
        return tuple((int(epoch), int(level)) for epoch, level in pairs)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not a list of epochs and levels such as 3:4,6:3"
        ) from None


def _names(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(part.strip() for part in value.split(","))


def _frame_range(
    _: click.Context, __: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    if value is None:
        return None
    first, _colon, end = value.partition(":")
    try:
        return int(first or 0), int(end)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a range of frames such as 0:60") from None


GROUPS = {
    "Most used": (
        "data", "layout", "output", "palette", "epochs", "steps_per_epoch", "augment", "init",
        "class_name", "preview", "overfit_one", "resume",
    ),
    "Data and split": (
        "frames", "sequences", "truth", "channel", "window", "group", "masks", "ignore_border",
        "ignore_label", "val_fraction", "test_fraction", "test_every", "synthetic",
        "synthetic_share",
    ),
    "Network": (
        "arch", "preset", "channels", "norm", "dropout", "up", "shuffle", "activation",
    ),
    "Objects": ("instances", "core_depth", "growth"),
    "Earlier networks": (
        "teacher", "teacher_share", "pretrained", "transfer", "transfer_white", "freeze_encoder",
        "unfreeze", "encoder_lr",
    ),
    "Fitting": (
        "batch", "patch", "accumulate", "loss", "dice", "class_weights", "foreground_weight",
        "border_weight", "optimiser", "lr", "schedule", "ema", "seed",
    ),
    "Machine, pictures and help": ("device", "precision", "workers", "strip_every", "help"),
}  # fmt: skip


@click.command(cls=grouped(GROUPS), short_help="Train a network on images with truth.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of the data.")
@click.option(
    "--layout",
    required=True,
    type=click.Choice(["ctc", "pairs", "color-masks"]),
    help="ctc: NN/tTTT.tif with NN_ST/SEG or NN_GT/SEG; pairs: images/ and labels/ or masks/; "
    "color-masks: images/, and masks/ whose colours are classes.",
)
@click.option("--palette", metavar="FILE|NAME",
              help="Which colours are which classes (color-masks): YAML or JSON, heart-ct, acdc or "
              "binary.")  # fmt: skip
@click.option("--window", metavar="CENTER,WIDTH",
              help="Limit pixel values to CENTER - WIDTH/2 to CENTER + WIDTH/2, in Hounsfield "
              "units for CT; the exported model does the same.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path),
              help="Folder to create.  [required, but for --overfit-one]")  # fmt: skip
@click.option("--arch", default="unet", show_default=True,
              type=click.Choice(["unet", "unet-resnet18", "unet-transfer"]),
              help="Network architecture.")  # fmt: skip
@click.option("--preset", type=click.Choice([*PRESETS]),
              help="A U-Net by name; the options below change it.  "
              "[nuclei; color-masks heart-small]")  # fmt: skip
@click.option("--channels", callback=_numbers, metavar="N,N,...",
              help="Channels of each level (of the decoder), finest first.  "
              "[16,32,64,128; unet-resnet18 16,32,64,128,256; "
              "unet-transfer 64,128,256,512,1024]")  # fmt: skip
@click.option("--norm", type=click.Choice(["batch", "none"]),
              help="Normalisation after each convolution.")  # fmt: skip
@click.option(
    "--dropout",
    type=float,
    help="Share dropped at the end of the contracting path.  "
    "[0; unet-transfer, on the way up, 0.2]",
)
@click.option("--up", type=click.Choice(["transposed", "bilinear"]),
              help="How a level becomes twice as fine.")  # fmt: skip
@click.option("--shuffle", type=int, metavar="1|2|4",
              help="Work at 1/N of the resolution, with N x N pixels as channels.")  # fmt: skip
@click.option("--activation", type=click.Choice(["relu", "relu6"]),
              help="What follows each convolution.  [relu; nuclei relu6, up to 6]")  # fmt: skip
@click.option("--pretrained", metavar="imagenet|FILE",
              help="Weights that the encoder of unet-resnet18 starts from.")  # fmt: skip
@click.option("--transfer", metavar="RUN|FILE",
              help="U-Net whose encoder unet-transfer starts from: a run, a checkpoint, or a Keras "
              "file (.h5, .keras).")  # fmt: skip
@click.option("--transfer-white", type=float, metavar="VALUE",
              help="What a white pixel was to that U-Net: 255 if it learnt from unscaled 8-bit "
              "pixels.  [1]")  # fmt: skip
@click.option("--freeze-encoder", default=0, show_default=True, metavar="N",
              help="Keep the encoder of unet-resnet18 or unet-transfer as it is for the first N "
              "epochs.")  # fmt: skip
@click.option("--unfreeze", metavar="EPOCH:LEVEL,...", callback=_unfreeze,
              help="Keep the encoder of unet-transfer as it is, but for levels (0: finest) that "
              "learn from an epoch on: 3:4,6:3.")  # fmt: skip
@click.option("--encoder-lr", type=float, metavar="LR",
              help="Peak learning rate of that encoder.  [that of --lr]")  # fmt: skip
@click.option("--epochs", type=int, help="Epochs to train.  [30]")
@click.option("--steps-per-epoch", type=int, metavar="N",
              help="Steps per epoch.  [200; heart-small 400]")  # fmt: skip
@click.option("--instances", type=click.Choice(["cores", "components", "none"]),
              help="How objects are told apart: cores, which the network learns beside the "
                   "foreground; components, between which it leaves a gap; or not at all.  "
                   "[cores]")  # fmt: skip
@click.option("--core-depth", type=float, metavar="PX",
              help="How far below an object's edge its core begins.  [2]")  # fmt: skip
@click.option("--growth", type=int, metavar="PX",
              help="How far a core is grown inside the foreground.  [5]")  # fmt: skip
@click.option(
    "--batch",
    type=int,
    metavar="N",
    help="Patches per step.  [nuclei 16; notebook, heart-small 4; others 8]",
)
@click.option("--patch", type=int, metavar="PX",
              help="Side of a patch.  [192; heart-small 160]")  # fmt: skip
@click.option("--accumulate", default=1, show_default=True, metavar="N",
              help="Average the gradients of N batches for one step.")  # fmt: skip
@click.option("--loss", type=click.Choice(["bce", "dice", "bce+dice", "ce", "ce+dice"]),
              help="What is minimised: weighted cross entropy (bce; of classes ce), soft Dice, or "
              "both.  [bce+dice; color-masks ce+dice]")  # fmt: skip
@click.option("--dice", type=float,
              help="Weight of Dice beside the cross entropy.  [0.5; color-masks 1]")  # fmt: skip
@click.option("--class-weights", metavar="auto|W,W,...", callback=_weights,
              help="Weight of each class in the cross entropy, background first; auto: rare "
              "classes weigh more (color-masks).")  # fmt: skip
@click.option("--foreground-weight", default=1.0, show_default=True,
              help="Weight of foreground pixels in the cross entropy.")  # fmt: skip
@click.option("--border-weight", default=10.0, show_default=True,
              help="Extra weight of the gaps between neighbours; 0: none.")  # fmt: skip
@click.option("--optimiser", default="adamw", show_default=True,
              type=click.Choice(["adamw", "adam", "sgd"]),
              help="What moves the weights; sgd has a momentum of 0.99.")  # fmt: skip
@click.option("--lr", type=float, help="Peak learning rate.  [0.002; sgd 0.01]")
@click.option("--schedule", default="cosine", show_default=True,
              type=click.Choice(["cosine", "one-cycle", "step", "constant"]),
              help="Course of the learning rate; step: a tenth after each third.")  # fmt: skip
@click.option("--ema", type=float, metavar="DECAY",
              help="Keep an exponential average of the weights; 0: none.  "
              "[0; color-masks 0.99]")  # fmt: skip
@click.option("--frames", metavar="A:B", callback=_frame_range,
              help="Only frames A to B-1 (ctc).")  # fmt: skip
@click.option("--sequences", metavar="NN,NN,...", callback=_names,
              help="Only these sequences (ctc).")  # fmt: skip
@click.option("--truth", type=click.Choice(["silver", "gold", "both"]),
              help="Truth to use; both: gold cells overrule silver ones (ctc).  "
              "[silver, or gold if there is no silver]")  # fmt: skip
@click.option("--channel", metavar="LIST",
              help="Channels of the images, by number or name: 1 or GFP.  [all]")  # fmt: skip
@click.option(
    "--group",
    metavar="REGEX",
    help="Files that agree here stay together.  [color-masks: up to the first _ or .]",
)
@click.option("--masks", is_flag=True,
              help="Truth is masks, not ids: objects are their 8-connected pieces.")  # fmt: skip
@click.option("--val-fraction", type=float, help="Share for validation.  [0.15]")
@click.option(
    "--test-fraction", type=float, help="Share held back for testing.  [ctc 0, others 0.2]"
)
@click.option("--test-every", type=int, metavar="N",
              help="Hold back every Nth frame of each sequence or folder instead.")  # fmt: skip
@click.option("--ignore-border", type=int, help="Margin without truth, px.  [ctc 25, others 0]")
@click.option("--ignore-label", type=int, metavar="N",
              help="Number in the truth of pixels that neither teach nor score.")  # fmt: skip
@click.option("--augment", type=click.Choice(["strong", "light", "upright", "source", "none"]),
              help="How much patches are varied; strong: for other microscopes as well, "
              "light: for the same, upright: without flips, source: flips and blur.  "
              "[light; color-masks upright]")  # fmt: skip
@click.option("--synthetic", default=0, show_default=True, help="Synthetic frames to add.")
@click.option("--synthetic-share", default=0.4, show_default=True,
              help="Share of patches cut from synthetic frames.")  # fmt: skip
@click.option("--init", metavar="RUN|MODEL",
              help="Start from an earlier run, or an exported or bundled model.")  # fmt: skip
@click.option("--teacher", "teachers", multiple=True, metavar="RUN",
              help="Learn what an earlier run predicts, beside the truth; of several, their "
              "mean.")  # fmt: skip
@click.option("--teacher-share", default=0.5, show_default=True,
              help="Share of the target that is the teachers'.")  # fmt: skip
@click.option("--class-name", default="foreground", show_default=True, help="Name of the objects.")
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option("--device", default="auto", show_default=True,
              type=click.Choice(["auto", "cpu", "cuda"]),
              help="Where to train; auto: on a GPU if there is one.")  # fmt: skip
@click.option("--precision", default="auto", show_default=True,
              type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
              help="Arithmetic; auto: bf16 if the hardware multiplies in it.")  # fmt: skip
@click.option("--workers", default=1, show_default=True, help="Processes that prepare patches.")
@click.option("--strip-every", default=5, show_default=True, metavar="N",
              help="Draw predictions beside the truth every N epochs, and after the last; "
              "0: never.")  # fmt: skip
@click.option("--preview", is_flag=True,
              help="Draw patches and targets to OUTPUT/preview.png, and stop.")  # fmt: skip
@click.option("--overfit-one", is_flag=True,
              help="Check the set-up: learn one patch by heart, in 100 steps.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Resume the run in OUTPUT.")
def train(
    output: Path | None,
    layout: str,
    arch: str,
    preset: str | None,
    preview: bool,
    overfit_one: bool,
    resume: bool,
    **options: Any,
) -> None:
    """Train a U-Net to separate objects from background and from each other, or, with --layout
    color-masks, to tell classes of pixels apart.

    Writes best.pt, last.pt, summary.json, history.csv, timings.csv, curves.png, strips/,
    settings.json, split.json and threshold.csv (of classes confusion-val.csv and
    confusion-test.csv) to OUTPUT, and tensorboard/ if TensorBoard is installed. `stackseg export`
    turns it into a model, `stackseg compare` sets runs side by side.

    Data are split by sequence, folder or image, never by patch; a single sequence is split by time.

    --overfit-one trains on one patch only, without varying it, by AdamW at a rate of its own, and
    exits with 1 unless its IoU (of classes, their mean Dice) exceeds 0.98. With OUTPUT it writes
    overfit.png and overfit.json.
    """
    from engine.errors import UsageError

    _require_torch()
    _check_modes(preview=preview, overfit_one=overfit_one, resume=resume)
    settings = _settings_of(layout, arch, preset, options)
    if overfit_one:
        from train.overfit import overfit_one as learn_one

        learn_one(settings, output, note=_note)
    elif output is None:
        raise UsageError("--output: is missing; name a folder for the run")
    elif preview:
        from train.preview import write_preview

        _note(f"training patches: {write_preview(settings, output, _note)}")
    else:
        _fit(settings, output, resume=resume)


def _require_torch() -> None:
    """MissingExtra where PyTorch, or what is installed with it, is not there."""
    from engine.errors import MissingExtra, install_command

    # Threads that wait must not spin away cores that are shared with anything else. OpenMP
    # reads this when PyTorch loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import train.fit  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "torchvision", "matplotlib"):
            raise
        raise MissingExtra(f"stackseg train needs PyTorch: {install_command('train')}") from None


def _fit(settings: TrainSettings, output: Path, *, resume: bool) -> None:
    """Train with progress on stderr; the best epoch's scores go to stdout."""
    from engine.job.progress import counter
    from train.fit import fit

    with counter("epoch", every=None) as count:

        def report(row: EpochRow) -> None:
            _note(f"epoch {row.epoch}/{settings.epochs}  {row.in_words()}")
            count(row.epoch, settings.epochs)

        try:
            best = fit(settings, output, note=_note, report=report, resume=resume)
        except KeyboardInterrupt:
            if not (output / "last.pt").exists():
                raise
            _note("stackseg: interrupted; run the same command with --resume to resume it")
            raise click.exceptions.Exit(INTERRUPTED) from None
    for name, value in best.scores.items():
        click.echo(f"{name} {value:.4f}")
    chosen = ""
    if best.chosen:
        chosen = (
            f", threshold {best.chosen['threshold']:g}, minimum area {best.chosen['min_area']:g} px"
        )
    _note(f"best epoch {best.epoch}{chosen}: {output / 'best.pt'}")


def _check_modes(**given: bool) -> None:
    """UsageError where more than one thing is to be done instead of a run from its start."""
    from engine.errors import UsageError

    names = [_option(name) for name, is_given in given.items() if is_given]
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} do not go together; give one of them")


def _settings_of(
    layout: str, arch: str, preset: str | None, options: Mapping[str, Any]
) -> TrainSettings:
    """What was asked for, over what the layout and the preset set."""
    from engine.errors import UsageError

    _check_classes(layout, options["instances"])
    defaults: dict[str, Any] = {"ignore_border": DEFAULT_BORDER[layout]}
    if options["test_every"] is None:
        defaults["test_fraction"] = DEFAULT_TEST[layout]
    if layout == "color-masks":
        defaults |= OF_CLASSES
    if preset is not None and arch != "unet":
        raise UsageError(f"--preset {preset}: is a unet; omit it, or --arch {arch}")
    defaults |= PRESETS[preset or DEFAULT_PRESET[layout]] if arch == "unet" else {}
    given = {name: value for name, value in options.items() if value is not None}
    given["data"] = str(given["data"])
    given |= _normalisation(given.pop("window", None))
    defaults |= _channel_names(given.get("channel"))
    return _settings(defaults | given | {"layout": layout, "arch": arch})


def _check_classes(layout: str, instances: str | None) -> None:
    """UsageError where an option is of objects and the layout of classes."""
    from engine.errors import UsageError

    if layout == "color-masks" and instances is not None:
        raise UsageError("--instances: is for objects, and --layout color-masks teaches classes")


def _normalisation(window: str | None) -> dict[str, Any]:
    """How pixels are limited and normalised, where a window was given."""
    from engine.errors import UsageError
    from engine.model.spec import Normalisation
    from engine.plan.window import ends_of, parse_numbers

    if window is None:
        return {}
    if window in ("file", "none"):  # of `segment`
        raise UsageError(
            f"--window {window}: a model has one window for all images; give CENTER,WIDTH"
        )
    try:
        found = parse_numbers(window)
    except ValueError as error:
        raise UsageError(f"--window {window}: {error}") from None
    return {"normalisation": Normalisation(window=ends_of(*found))}


def _channel_names(channels: str | None) -> dict[str, tuple[str, ...]]:
    """The names of the model's inputs, where they were chosen by name."""
    from engine.errors import UsageError
    from engine.plan.channels import parse_channels

    try:
        names = parse_channels(channels) if channels is not None else ()
    except ValueError as error:
        raise UsageError(f"--channel {channels!r} {error}") from None
    by_name = tuple(name for name in names if isinstance(name, str))
    return {"channel_names": by_name} if names and len(by_name) == len(names) else {}


def _settings(values: dict[str, Any]) -> TrainSettings:
    from pydantic import ValidationError

    from engine.errors import UsageError
    from train.settings import TrainSettings

    try:
        return TrainSettings(**values)
    except ValidationError as error:
        found = error.errors()
        name = next(iter(found[0]["loc"]), None)
        # Of a value that may be of several kinds, the last one tells most: not the keyword.
        last = [one for one in found if next(iter(one["loc"]), None) == name][-1]
        start = f"{_option(str(name))}: " if name else ""
        words = re.sub(r"`(\w+)`", lambda field: _option(field[1]), last["msg"])
        raise UsageError(f"{start}{words.removeprefix('Value error, ')}") from None


def _option(field: str) -> str:
    """The option that sets a field of the settings."""
    return "--teacher" if field == "teachers" else f"--{field.replace('_', '-')}"


def _note(words: str) -> None:
    click.echo(words, err=True)
