"""The demo: make a time-lapse, segment it, score it against its truth, and draw them.

OUTPUT/timelapse.tif   the frames               OUTPUT/result/timelapse.zarr   the labels
OUTPUT/truth.tif       the labels they have     OUTPUT/overlay.png             outlines
                                                OUTPUT/movie.mp4               all frames
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

from engine.errors import INTERRUPTED, plural
from engine.job.job import run_job
from engine.job.progress import LineProgress
from engine.job.run import JobSummary
from engine.model.file import open_model
from engine.plan.resources import cores
from engine.plan.settings import job_settings
from engine.results.pictures.panels import overlay_png
from engine.results.pictures.render import RenderSettings, render
from engine.results.score.compare import compare
from engine.results.score.comparison import Comparison
from engine.results.score.sources import open_labels
from engine.store.files import whole_file
from engine.synthetic import TimeLapse, write_tiff

MOVIE_WIDTH = 640  # px across which a frame is drawn: small, so that the demo is quick
# Of the bundled network on two cores of an AMD EPYC: seconds for a million pixels that one core
# spends on frames, scores and pictures, and that all cores share.
ALONE, SHARED = 0.15, 1.1
log = logging.getLogger("stackseg")


@dataclass(frozen=True)
class Demo:
    """A demo that has run; without scores where it was interrupted."""

    files: dict[str, Path]  # by what they are
    summary: JobSummary
    scores: Comparison | None = None

    @property
    def table(self) -> dict[str, str]:
        """Names and values of the short table at the end."""
        rows = {
            "frames": f"{self.summary.frames_done}",
            "objects": f"{self.summary.objects:,}",
            "frames/s": f"{self.summary.frames_per_second:.1f}",
        }
        if self.scores is not None:
            pooled = self.scores.scores(self.scores.pooled)
            named = {"IoU": "iou", "SEG": "seg", "F1 at IoU 0.5": "f1_0.5"}
            rows |= {name: f"{pooled[score]:.3f}" for name, score in named.items()}
        return rows


def run_demo(
    output: Path, shape: tuple[int, int, int], seed: int, model: str, workers: int | None
) -> Demo:
    """Make and segment a synthetic time-lapse; an earlier demo in `output` is replaced.

    Parameters
    ----------
    output
        Folder for all files; created if necessary.
    shape
        Frames, rows and columns of the time-lapse.
    seed
        Of the time-lapse.
    model
        An ONNX file or the name of a bundled model.
    workers
        Blocks in flight; None: one per core.
    """
    timelapse, truth, result = output / "timelapse.tif", output / "truth.tif", output / "result"
    lapse = TimeLapse(shape=shape, seed=seed)
    settings = job_settings(
        inputs=(str(timelapse),), model=model, output=result, workers=workers, fresh=True
    )
    open_model(model)  # refused before anything is written

    n_cores = min(workers or cores(), cores())
    log.info(
        "making and segmenting %s of %d x %d px takes about %s on %s",
        plural(shape[0], "frame"), *shape[1:], _duration(shape, n_cores), plural(n_cores, "core"),
    )  # fmt: skip
    with whole_file(timelapse) as images, whole_file(truth) as labels:
        write_tiff(images, lapse, labels)
    summary = run_job(settings, LineProgress())
    files = {
        "time-lapse": timelapse,
        "truth": truth,
        "labels": Path(summary.stacks[0]),
        "tables": result / "frames.csv",
        "picture": output / "overlay.png",
        "movie": output / "movie.mp4",
    }
    if summary.exit_status == INTERRUPTED:
        return Demo(files, summary)
    scores = compare(files["labels"], truth)
    middle = shape[0] // 2
    found = open_labels(files["labels"]).read((middle, 0))
    overlay_png(files["picture"], lapse.frame(middle)[0], found)
    render(result, RenderSettings(files["movie"], width=MOVIE_WIDTH, overwrite=True))
    return Demo(files, summary, scores)


def _duration(shape: tuple[int, int, int], n_cores: int) -> str:
    """About how long the demo takes, rounded up, in words."""
    seconds = math.prod(shape) / 1e6 * (ALONE + SHARED / n_cores)
    if seconds <= 50:
        return f"{max(math.ceil(seconds / 10), 1)}0 s"
    return plural(math.ceil(seconds / 60), "minute")
