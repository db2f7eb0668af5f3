"""The demo: make a time-lapse, segment it, score it against its truth, and draw one frame.

OUTPUT/timelapse.tif   the frames               OUTPUT/result/timelapse.zarr   the labels
OUTPUT/truth.tif       the labels they have     OUTPUT/overlay.png             outlines
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.errors import OutputError
from engine.interrupts import INTERRUPTED
from engine.job import run_job
from engine.model_file import open_model
from engine.progress import LineProgress
from engine.report.overlay import overlay_png
from engine.run import JobSummary
from engine.score.compare import Comparison, compare
from engine.score.sources import open_labels
from engine.settings import job_settings
from engine.stacks.synthetic import TimeLapse, write_tiff

log = logging.getLogger("stackseg")


@dataclass(frozen=True)
class DemoFiles:
    """What the demo leaves, by name."""

    timelapse: Path
    truth: Path
    result: Path  # the job's folder
    overlay: Path

    @classmethod
    def under(cls, output: Path) -> DemoFiles:
        """The demo's files in the folder `output`."""
        return cls(
            output / "timelapse.tif", output / "truth.tif", output / "result",
            output / "overlay.png",
        )  # fmt: skip


@dataclass(frozen=True)
class Demo:
    """A demo that has run; without scores where it was interrupted."""

    files: DemoFiles
    summary: JobSummary
    scores: Comparison | None

    @property
    def exit_status(self) -> int:
        """Status to leave with: the job's."""
        return self.summary.exit_status


def run_demo(
    output: Path, shape: tuple[int, int, int], seed: int, model: str, workers: int | None
) -> Demo:
    """Make and segment a synthetic time-lapse; an earlier demo in `output` is replaced.

    Parameters
    ----------
    output
        Folder for all files; made if need be.
    shape
        Frames, rows and columns of the time-lapse.
    seed
        Of the time-lapse.
    model
        An ONNX file or the name of a bundled model.
    workers
        Blocks in flight; None: one per core.
    """
    files = DemoFiles.under(output)
    lapse = TimeLapse(shape=shape, seed=seed)
    settings = job_settings(
        inputs=(str(files.timelapse),), model=model, output=files.result, workers=workers,
        fresh=True,
    )  # fmt: skip
    open_model(model)  # refused before anything is written

    log.info("making %d frames of %d x %d px", *shape)
    _write_stack(files, lapse)
    summary = run_job(settings, LineProgress())
    if summary.exit_status == INTERRUPTED:
        return Demo(files, summary, None)
    result = summary.stacks[0]
    scores = compare(result, files.truth)
    middle = shape[0] // 2
    labels = open_labels(result).read((middle, 0))
    overlay_png(files.overlay, lapse.frame(middle)[0], labels)
    return Demo(files, summary, scores)


def table(demo: Demo) -> list[tuple[str, str]]:
    """Names and values of the short table at the end."""
    rows = [
        ("frames", f"{demo.summary.frames_done}"),
        ("objects", f"{demo.summary.objects:,}"),
        ("frames/s", f"{demo.summary.frames_per_second:.1f}"),
    ]
    if demo.scores is not None:
        pooled = demo.scores.scores(demo.scores.pooled)
        named = {"IoU": "iou", "SEG": "seg", "F1 at IoU 0.5": "f1_0.5"}
        rows += [(name, f"{pooled[score]:.3f}") for name, score in named.items()]
    return rows


def _write_stack(files: DemoFiles, lapse: TimeLapse) -> None:
    try:
        files.timelapse.parent.mkdir(parents=True, exist_ok=True)
        with _whole(files.timelapse) as images, _whole(files.truth) as truth:
            write_tiff(images, lapse, truth)
    except OSError as error:
        raise OutputError(
            f"{files.timelapse.parent}: cannot be written ({error.strerror or error})"
        ) from error


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A name to write to; the file gets its own name once it is whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
