"""The demo: make a time-lapse, segment it, score it against its truth, and draw them.

OUTPUT/timelapse.tif   the frames               OUTPUT/result/timelapse.zarr   the labels
OUTPUT/truth.tif       the labels they have     OUTPUT/overlay.png             outlines
                                                OUTPUT/movie.mp4               all frames
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from engine.job.job import run_job
from engine.job.progress import LineProgress
from engine.job.run import JobSummary
from engine.job.signals import INTERRUPTED
from engine.model.file import open_model
from engine.plan.settings import job_settings
from engine.results.pictures.panels import overlay_png
from engine.results.pictures.render import RenderSettings, render
from engine.results.score.compare import Comparison, compare
from engine.results.score.sources import open_labels
from engine.store.files import whole_file
from engine.synthetic import TimeLapse, write_tiff

MOVIE_WIDTH = 640  # px across which a frame is drawn: small, so that the demo is quick
log = logging.getLogger("stackseg")


@dataclass(frozen=True)
class DemoFiles:
    """What the demo leaves, by name."""

    timelapse: Path
    truth: Path
    result: Path  # the job's folder
    overlay: Path
    movie: Path

    @classmethod
    def under(cls, output: Path) -> DemoFiles:
        """The demo's files in the folder `output`."""
        return cls(
            output / "timelapse.tif", output / "truth.tif", output / "result",
            output / "overlay.png", output / "movie.mp4",
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
    render(files.result, RenderSettings(files.movie, width=MOVIE_WIDTH, overwrite=True))
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
    with whole_file(files.timelapse) as images, whole_file(files.truth) as truth:
        write_tiff(images, lapse, truth)
