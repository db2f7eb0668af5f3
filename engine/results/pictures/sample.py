"""A look before the job: a few frames, segmented with its settings, as overlays.

DIR/sample/NAME_t0012_z003.png   a frame under the outlines of its objects
DIR/sample/sample.png            all of them on one sheet
DIR/sample/sample.json           names of these files: a later sample replaces no others

No job is begun: nothing else is written, and the job's folder is as free as before. Frames take the
same path as in a job, statistics of the whole frame and tiles with their halo included. Of a frame
that is cut into regions, the middle one is segmented, without stitching its objects to others;
planes are labelled one by one, where a job with `--connect z` would connect them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError, OutputError, UsageError, plural
from engine.geometry.arrays import LABELS
from engine.geometry.layout import Block
from engine.geometry.spread import spread
from engine.job.fast import prepare_checked
from engine.job.job import job_context
from engine.plan.plan import StackPlan
from engine.plan.settings import JobSettings
from engine.results.pictures import files as pictures
from engine.results.pictures.caption import draw_strip, frame_parts, scale_bar
from engine.results.pictures.panels import Picture, contrast, grey_panel, outlined
from engine.results.pictures.sampling import mean_of, nearest
from engine.results.pictures.scene import GAMMA
from engine.results.planes import Number
from engine.results.result import LabelClass, rgb_of
from engine.steps.frame import SegmentedFrame, label_whole
from engine.steps.hangs import ADVICE, PLANNING, Hung, limit_of, watched
from engine.steps.network import Network
from engine.steps.survey import survey_frame
from engine.steps.task import Task, TaskRun
from engine.steps.worker import forget_stack, keep_model, release, warm_up
from engine.store.claim import check_writable
from engine.store.destination import SAMPLE, check_apart
from engine.store.files import picture_name, whole_folder
from engine.store.folder import JobFolder

FILES = "sample.json"
FIELDS = ("frame", "objects", "median area px", "foreground")
CELL = 600  # px; sides of a picture on the sheet, at most
LEAST = 256  # px; smaller frames are enlarged
log = logging.getLogger("stackseg")


@dataclass(frozen=True)
class Sample:
    """What was found in one frame."""

    name: str  # of its picture, without the suffix
    objects: int | None  # None for class maps
    median_area_px: float | None
    foreground: float  # share of the pixels, 0..1
    reason: str = ""  # why it could not be segmented

    @property
    def fields(self) -> tuple[str, ...]:
        """As `FIELDS` names them."""
        if self.reason:
            return self.name, "failed", "", ""
        area = "" if self.median_area_px is None else f"{self.median_area_px:.0f}"
        objects = "" if self.objects is None else str(self.objects)
        return self.name, objects, area, f"{self.foreground:.1%}"


def sample(
    settings: JobSettings, count: int, progress: Callable[[int, int], None] | None = None
) -> tuple[list[Sample], list[str]]:
    """Segment `count` frames, or all where there are fewer; what was found, and inputs refused.

    Raises what a job would before it begins, UsageError for settings that no sample can have, and
    OutputError where DIR/sample is, or belongs to, something else than an earlier sample.
    """
    for given, option in (
        (settings.array_task, "--array-task"), (settings.fresh, "--fresh"),
        (settings.retry_failed, "--retry-failed"), (settings.scheduler, "--scheduler"),
    ):  # fmt: skip
        if given:
            raise UsageError(f"--sample: looks at frames in this process; omit {option}")
    check_writable(settings.output)
    with ExitStack() as opened:
        job = prepare_checked(settings)
        check_apart(job.plan, settings.output, SAMPLE)
        _check_own(settings.output / SAMPLE)
        opened.callback(release)
        keep_model(job.model)
        context = job_context(job, "")
        warm_up(context, job.plan.stacks)
        for warning in job.plan.warnings:
            log.warning(warning)
        stacks = job.plan.stacks
        chosen = [(stacks[at], number) for at, number in spread([s.layout for s in stacks], count)]
        folder = opened.enter_context(whole_folder(settings.output / SAMPLE, "*", overwrite=True))
        samples, sheet = [], []
        for stack, number in chosen:
            task = Task(context, stack, "segment", 0)
            run = TaskRun(task, JobFolder(settings.output), job.model)
            found, small = _draw(run, number, folder)
            samples.append(found)
            sheet.append(small)
            if progress is not None:
                progress(len(samples), len(chosen))
        pictures.png(folder / "sample.png", pictures.contact_sheet(sheet))
        names = sorted(path.name for path in folder.iterdir())
        (folder / FILES).write_text(json.dumps({"files": names}, indent=1) + "\n")
    return samples, [reason for _, reason in job.plan.refused]


def _check_own(folder: Path) -> None:
    """OutputError where the folder holds files of no earlier sample, which would be lost."""
    if not folder.exists():
        return
    try:
        there = {path.name for path in folder.iterdir()}
        own = not there or there <= {FILES, *json.loads((folder / FILES).read_bytes())["files"]}
    except (OSError, ValueError, LookupError, TypeError):
        own = False
    if not own:
        raise OutputError(
            f"{folder}: holds files that no earlier --sample wrote; move it away, or give another "
            "--output"
        )


def _draw(run: TaskRun, number: Number, folder: Path) -> tuple[Sample, Picture]:
    """What is found in a frame, and a small picture of it; the full one is written."""
    plan = run.plan
    name = picture_name(plan.name, plan.layout.axes, *number)
    try:
        look = _look_within(run, number)
    except FrameError as error:
        small = draw_strip(CELL, f"{name} · cannot be segmented")
        return Sample(name, None, None, 0.0, str(error)), small
    height, width = look.pixels.shape
    pictures.png(folder / f"{name}.png", look.picture(width * -(-LEAST // width)))
    measures, small = look.done.measures, look.picture(max(CELL * width // max(height, width), 1))
    area, fraction = measures.get("area_median_px"), measures["foreground_fraction"]
    return Sample(name, look.objects, area, float(fraction or 0.0)), small


@dataclass(frozen=True)
class _Look:
    """A frame, or a region of one, that has been segmented."""

    plan: StackPlan
    number: Number
    block: Block  # of what was segmented
    pixels: NDArray[Any]  # (Y, X), of the model's first channel
    done: SegmentedFrame
    classes: tuple[LabelClass, ...]  # of a class map

    @property
    def objects(self) -> int | None:
        """Number of objects; None of a class map."""
        count = self.done.measures.get("objects")
        return None if count is None else int(count)

    def picture(self, width: int) -> Picture:
        """The frame under its outlines, `width` px wide, with its caption."""
        size = self.pixels.shape[0], self.pixels.shape[1]
        shape = (max(round(size[0] * width / size[1]), 1), width)
        whole = (slice(0, size[0]), slice(0, size[1]), self.pixels)
        grey = contrast(mean_of([whole], size, shape), gamma=GAMMA)
        labels = self.done.images[LABELS][
            np.ix_(nearest(shape[0], size[0]), nearest(width, size[1]))
        ]
        panel = outlined(grey_panel(grey), labels, self.classes)
        bar = scale_bar(size[1], width, self.plan.info.pixel_size_um.get("X"))
        return np.concatenate([panel, draw_strip(width, self._caption(), bar)])

    def _caption(self) -> str:
        layout, rows, columns = self.plan.layout, self.block.y, self.block.x
        last = layout.t0 + layout.sizes[0] - 1
        parts = [self.plan.name]
        parts += frame_parts(layout.axes, *self.number, self.plan.info.time_step_s, last)
        if self.objects is not None:
            parts.append(plural(self.objects, "object"))
        if layout.is_cut:
            parts.append(f"rows {rows.start}:{rows.stop}, columns {columns.start}:{columns.stop}")
        return " · ".join(parts)


def _look_within(run: TaskRun, number: Number) -> _Look:
    """See `_look`; FrameError also where it gives no sign of life within the limit."""
    limit = limit_of(run.task.context.timeout)
    try:
        return watched(partial(_look, run, number), run.pulse, limit, PLANNING)
    except Hung as hung:
        forget_stack(run.plan)  # it may hold what closing it would wait for
        raise FrameError(f"did not end within {hung.seconds:g} s; {ADVICE}") from hung


def _look(run: TaskRun, number: Number) -> _Look:
    """Segment a frame; of one that is cut its middle region."""
    plan, layout, spec = run.plan, run.plan.layout, run.model.spec
    t, z = number[0] - layout.t0, number[1] - layout.z0
    _, _, down, across = layout.grid
    at = (t // layout.block_size[0], z // layout.block_size[1], down // 2, across // 2)
    block = layout.block(layout.number(at))
    block = replace(block, t=(number[0], number[0] + 1), z=(number[1], number[1] + 1))
    survey = lru_cache(partial(survey_frame, run)) if layout.is_cut else None
    source = Network(run, block, survey)
    frame = run.tried(*number, lambda: source.predict(*number))
    channel, how = plan.channels[0], plan.postprocessing
    channels = plan.summed_channels(frame.pixels)
    # The edge of a region is no border of the frame.
    how = replace(how, clear_border=how.clear_border and not layout.is_cut)
    done = label_whole(channels, channel, frame.outputs, spec, how, plan.pixel_area_um2, run.watch)
    classes = () if not how.gives_classes else tuple(
        LabelClass(n, c.name, rgb_of(c.color)) for n, c in enumerate(spec.classes)
    )  # fmt: skip
    return _Look(plan, number, block, channels[channel], done, classes)
