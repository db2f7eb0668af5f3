"""`stackseg segment`: the main job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from engine.commands.grouped import grouped

Command = Callable[..., Any]
Option = Callable[[Command], Command]


def together(*options: Option) -> Option:
    """One decorator that adds several options, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def postprocessing_options(result: str = "") -> Option:
    """Options of what turns probabilities into labels.

    They default to those of the model or, where help texts name a `result`, to those of the
    result.
    """

    def default(otherwise: str = "the model's") -> str:
        return f"  [default: {f'that of {result}' if result else otherwise}]"

    return together(
        click.option("--threshold", type=float, metavar="P",
                     help="Probability from which a pixel is foreground" + default()),
        click.option("--instances", type=click.Choice(["components", "watershed", "cores", "none"]),
                     help="components: pixels that touch are one object; watershed: objects are "
                          "also cut where they are narrow; cores: the model's cores are grown to "
                          "objects; none: no objects but a class map" + default()),
        click.option("--min-area", metavar="PX|UM2",
                     help="Drop objects smaller than this, such as 30 or 12um2" + default()),
        click.option("--max-area", metavar="PX|UM2",
                     help="Drop objects larger than this; none keeps all" + default("none")),
        click.option("--fill-holes/--no-fill-holes", default=None,
                     help="Make background that an object encloses part of the object."),
        click.option("--clear-border/--no-clear-border", default=None,
                     help="Drop objects that touch the border of the frame."),
        click.option("--min-distance", metavar="PX|UM",
                     help="Least distance between two seeds of a watershed, such as 6 or 2.5um"
                          + default()),
        click.option("--seed-height", type=float, metavar="PX",
                     help="Height of a seed of a watershed above the neck to a higher one, where "
                          "height is the distance to the background" + default("1")),
        click.option("--core-threshold", type=float, metavar="P",
                     help="Probability from which a pixel is part of a core" + default()),
        click.option("--growth", type=int, metavar="PX",
                     help="The most that a core grows inside the foreground" + default()),
        click.option("--pinhole", type=int, metavar="PX",
                     help="Fill holes that fit into a box of this side, in cores and in the "
                          "foreground; 0 fills none" + default()),
        click.option("--unreached", type=click.Choice(["keep", "drop"]),
                     help="What becomes of foreground beyond the growth of any core: keep makes "
                          "it objects of its own" + default()),
    )  # fmt: skip


resource_options = together(
    click.option("--workers", type=int, metavar="N",
                 help="Blocks in flight  [default: one per core]"),
    click.option("--memory", metavar="SIZE",
                 help="The most memory to use, such as 8GB  [default: most of what is free]"),
)  # fmt: skip

log_options = together(
    click.option("--quiet", is_flag=True, help="Show warnings and errors only, no progress."),
    click.option("--json-log", type=click.Path(path_type=Path), metavar="FILE",
                 help="Append a line of JSON per event to FILE."),
)  # fmt: skip

job_options = together(
    click.argument("inputs", nargs=-1, required=True, metavar="INPUT..."),
    click.option("--model", required=True, help="An ONNX file, or a bundled model: nuclei."),
    click.option("--channel", metavar="CHANNELS",
                 help="Channels that feed the model, by number from 0 or by name: 1, GFP or 0,2. "
                      "Quote a name that is a number or has a comma: '\"DAPI, 405\"'."),
    click.option("--measure", default="all", show_default=True, metavar="CHANNELS|all|none",
                 help="Channels whose intensities are measured in each object. Only these and "
                      "the model's are read."),
    click.option("--window", metavar="CENTER,WIDTH|file|none",
                 help="Limit the values that the network sees to CENTER - WIDTH/2 to CENTER + "
                      "WIDTH/2, in Hounsfield units for CT; file: the window of the DICOM file; "
                      "none: not at all. Measures are of all values  [default: the model's]"),
    click.option("--axes", metavar="TYX",
                 help="Axes of the inputs, where their metadata are missing or wrong."),
    click.option("--series", metavar="N|NAME|all|pages",
                 help="Image to read of a TIFF that holds several, or series of a DICOM folder; "
                      "pages: every page is a frame, whatever the metadata say  [default: the "
                      "largest, and those like it in OME-TIFF]"),
    click.option("--frames", metavar="A:B",
                 help="Segment only these frames: half-open, along T, or Z where there is no T."),
    click.option("--missing-chunks", type=click.Choice(["fail", "background"]),
                 default="fail", show_default=True,
                 help="Take a Zarr frame without any chunks as failed, or as background."),
    postprocessing_options(),
    click.option("--objects", metavar="CLASS[,CLASS...]",
                 help="For a model of several classes: make objects of connected pixels of these "
                      "classes, in a label image of their own beside the class map."),
    click.option("--tile", default="auto", show_default=True, metavar="auto|N",
                 help="Side of a tile in px, halo included; auto: whole frames if they fit."),
    click.option("--halo", type=int, metavar="N",
                 help="Margin around a tile in px  [default: what the network can see]"),
    click.option("--connect", type=click.Choice(["none", "z"]), default="none",
                 show_default=True,
                 help="z: pixels that touch in neighbouring planes are one object too."),
    click.option("--keep", type=click.Choice(["probability"]),
                 help="Store 8-bit probabilities too, for `stackseg relabel`."),
    click.option("--keep-identifiers", is_flag=True,
                 help="Keep PatientID, StudyInstanceUID and SeriesInstanceUID of DICOM inputs in "
                      "the result; without it, nothing of a patient is kept."),
    click.option("--with-image", is_flag=True,
                 help="Copy the raw stack into the result, with the same levels."),
    resource_options,
    click.option("--scheduler", metavar="ADDRESS|FILE",
                 help="Run on a Dask cluster  [default: in this process]"),
    click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N|:all]",
                 help="Where the network runs; auto: on a GPU if the runtime has one. cuda:all "
                      "uses every GPU of this machine, with a process for each."),
    click.option("--runtime", type=click.Choice(["auto", "onnxruntime", "openvino", "tensorrt"]),
                 default="auto", show_default=True,
                 help="Library that runs the network; auto is onnxruntime. In fp32 on CPUs labels "
                      "of two runtimes differ by at most one pixel in a million."),
    click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16", "fast"]),
                 default="fp32", show_default=True,
                 help="What the network computes in. bf16 and fp16 are openvino's, on processors "
                      "that have them, and fp16 tensorrt's; fast is what `stackseg tune` found "
                      "fastest for this model and machine, if labels of the first frames agree "
                      "with fp32."),
)  # fmt: skip


def _folder(context: click.Context, parameter: click.Parameter, value: str) -> Path:
    # An unset variable in a script must not turn into the current folder.
    if not value:
        raise click.BadParameter("is empty; give a folder, or . for the current one")
    return Path(value)


def _current_name(name: str) -> str:
    """The name of an option that has been renamed; scripts may still use the old one."""
    return {"shard": "array-task"}.get(name, name)


run_options = together(
    click.option("--output", required=True, callback=_folder, metavar="DIR",
                 help="Folder for labels and tables; an unfinished job in DIR is resumed."),
    click.option("--fresh", is_flag=True, help="Start over instead of resuming."),
    click.option("--retry-failed", is_flag=True, help="Repeat the frames that were set aside."),
    click.option("--array-task", metavar="I/N",
                 help="Do part I of N of the blocks, as task I of a job array; the last task to "
                      "end completes the job."),
    click.option("--grace", type=float, default=20.0, show_default=True, metavar="SECONDS",
                 help="Seconds that running blocks get after SIGTERM."),
    click.option("--timeout", default="auto", show_default=True, metavar="SECONDS|auto|none",
                 help="Seconds without progress after which a read is given up; a frame whose "
                      "read is given up twice is set aside. auto: 20 times the longest wait so "
                      "far, at least 10 minutes and at most an hour; none: no limit."),
    click.option("--dry-run", is_flag=True, help="Print the plan and stop; nothing is written."),
    click.option("--sample", type=click.IntRange(min=1, max=100), metavar="N",
                 help="Segment N frames spread over the stacks, write their overlays to "
                      "DIR/sample, and stop."),
    log_options,
)  # fmt: skip


GROUPS = {
    "Most used": (
        "model", "output", "channel", "frames", "threshold", "min_area", "memory", "sample",
        "dry_run", "retry_failed", "fresh",
    ),
    "Inputs": ("axes", "series", "missing_chunks", "window", "measure", "keep_identifiers"),
    "Objects": (
        "instances", "max_area", "fill_holes", "clear_border", "objects", "connect",
        "min_distance", "seed_height", "core_threshold", "growth", "pinhole", "unreached",
    ),
    "What is stored": ("keep", "with_image"),
    "Machine": (
        "workers", "device", "runtime", "precision", "tile", "halo", "scheduler", "array_task",
        "grace", "timeout",
    ),
    "Messages and help": ("quiet", "json_log", "help"),
}  # fmt: skip


@click.command(
    cls=grouped(GROUPS),
    context_settings={"token_normalize_func": _current_name},
    short_help="Segment stacks into label volumes and tables.",
)
@job_options
@run_options
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
    JPEG, a DICOM file or folder of a series, NIfTI, a Zarr array, an OME-Zarr image, or @list.txt
    with one of these on each line.

    \b
    Exit status: 0 complete, now or before
                 1 complete but for stacks or frames that failed
                 2 wrong use, unusable model, or no input that can be opened
                 3 stopped: a full disk, a lost input; the same command resumes the job
                 130 interrupted; the same command resumes the job
    """
    from engine.commands import running

    settings = running.settings(frames=frames, **options)
    if dry_run:
        return running.show_plan(settings, for_output=True)
    if sample is not None:
        return running.sample(settings, sample, quiet=quiet)
    return running.segment(settings, quiet=quiet, json_log=json_log)
