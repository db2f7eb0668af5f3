"""A look before the night is spent: a few frames by the very settings of a job, as overlays.

DIR/sample/NAME_t0012_z003.png   a frame under the outlines of its objects
DIR/sample/sample.png            all of them on one sheet
DIR/sample/sample.json           names of these files: a later sample replaces no others

No job is begun: nothing else is written, and the job's folder is as free as before. Frames take the
same path as in a job, statistics of the whole frame and tiles with their halo included. Of a frame
that is cut into regions the middle one is looked at, whose objects are not stitched to others;
planes are labelled one by one, where a job with `--connect z` would connect them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError, OutputError, UsageError
from engine.geometry.layout import Block, LabelLayout
from engine.job.job import job_context
from engine.job.prepare import Prepared, check_device, prepare_job
from engine.plan.plan import StackPlan, check_apart
from engine.plan.settings import JobSettings
from engine.results.pictures import files as pictures
from engine.results.pictures.caption import draw_strip, scale_bar, time_text
from engine.results.pictures.panels import Picture, contrast, grey_panel, outlined
from engine.results.pictures.sampling import mean_of, nearest
from engine.results.pictures.scene import GAMMA
from engine.results.planes import Number
from engine.results.result import LabelClass, rgb_of
from engine.steps.frame import Network, SegmentedFrame, label_whole
from engine.steps.hangs import ADVICE, PLANNING, Hung, limit_of, watched
from engine.steps.survey import survey_frame
from engine.steps.task import Task, TaskRun
from engine.steps.worker import JobContext, forget_stack, keep_model, release, warm_up
from engine.store.claim import check_writable
from engine.store.files import picture_name, whole_folder
from engine.store.folder import JobFolder

FOLDER, MADE = "sample", "sample.json"
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
        (settings.shard, "--shard"), (settings.fresh, "--fresh"),
        (settings.retry_failed, "--retry-failed"), (settings.scheduler, "--scheduler"),
    ):  # fmt: skip
        if given:
            raise UsageError(f"--sample: looks at frames in this process; leave {option} away")
    check_writable(settings.output)
    with ExitStack() as opened:
        job = prepare_job(settings)
        check_apart(job.plan, settings.output, FOLDER)
        _check_own(settings.output / FOLDER)
        job = check_device(job, None)
        opened.callback(release)
        keep_model(job.model)
        context = job_context(job, "")
        warm_up(context, {stack.info.dtype for stack in job.plan.stacks})
        for warning in job.plan.warnings:
            log.warning(warning)
        stacks = job.plan.stacks
        chosen = [(stacks[at], number) for at, number in spread([s.layout for s in stacks], count)]
        found: list[Sample] = []
        folder = opened.enter_context(whole_folder(settings.output / FOLDER, "*", overwrite=True))
        drawn = list(_drawn(job, context, chosen, folder, found, progress))
        pictures.png(folder / "sample.png", pictures.contact_sheet(drawn))
        made = sorted(path.name for path in folder.iterdir())
        (folder / MADE).write_text(json.dumps({"files": made}, indent=1) + "\n")
    return found, [reason for _, reason in job.plan.refused]


def _check_own(folder: Path) -> None:
    """OutputError where something is there that no earlier sample has made: it would be gone."""
    if not folder.exists():
        return
    try:
        there = {path.name for path in folder.iterdir()}
        own = not there or there <= {MADE, *json.loads((folder / MADE).read_bytes())["files"]}
    except (OSError, ValueError, LookupError, TypeError):
        own = False
    if not own:
        raise OutputError(
            f"{folder}: is not, or not only, what an earlier --sample made; move it away, or give "
            "another --output"
        )


def spread(layouts: Sequence[LabelLayout], count: int) -> Iterator[tuple[int, Number]]:
    """`count` frames, as evenly over the stacks as their lengths allow, and evenly along each.

    Gives the stack's place in `layouts` and the frame's (t, z), in order.
    """
    sizes = [layout.n_frames for layout in layouts]
    shares = [0] * len(sizes)
    if count < len(sizes):
        for n in range(count):
            shares[(2 * n + 1) * len(sizes) // (2 * count)] = 1
    for _ in range(min(count, sum(sizes)) - sum(shares)):
        shares[min(
            (n for n in range(len(sizes)) if shares[n] < sizes[n]), key=lambda n: shares[n]
        )] += 1  # fmt: skip
    for at, (layout, share) in enumerate(zip(layouts, shares, strict=True)):
        for n in range(share):
            t, z = divmod((2 * n + 1) * layout.n_frames // (2 * share), layout.sizes[1])
            yield at, (t + layout.t0, z + layout.z0)


def _drawn(
    job: Prepared,
    context: JobContext,
    chosen: list[tuple[StackPlan, Number]],
    folder: Path,
    found: list[Sample],
    progress: Callable[[int, int], None] | None,
) -> Iterator[Picture]:
    """A small picture of each frame; the full one is written, what was found goes to `found`."""
    for n, (stack, number) in enumerate(chosen):
        run = TaskRun(Task(context, stack, "segment", 0), JobFolder(job.settings.output), job.model)
        name = picture_name(stack.name, stack.layout.axes, *number)
        try:
            look = _look_within(run, number, name)
        except FrameError as error:
            found.append(Sample(name, None, None, 0.0, str(error)))
            small = draw_strip(CELL, f"{name} · cannot be segmented", None)
        else:
            found.append(look.told)
            height, width = look.done.labels.shape
            pictures.png(folder / f"{name}.png", look.picture(width * -(-LEAST // width)))
            small = look.picture(max(CELL * width // max(height, width), 1))
        if progress is not None:
            progress(n + 1, len(chosen))
        yield small


@dataclass(frozen=True)
class _Look:
    """A frame, or a region of one, that has been segmented."""

    channel: NDArray[Any]  # raw pixels (Y, X)
    done: SegmentedFrame
    told: Sample
    classes: tuple[LabelClass, ...]
    caption: str
    pixel_size_um: float | None

    def picture(self, width: int) -> Picture:
        """The frame under its outlines, `width` px wide, with its caption."""
        size = self.channel.shape[0], self.channel.shape[1]
        shape = (max(round(size[0] * width / size[1]), 1), width)
        whole = (slice(0, size[0]), slice(0, size[1]), self.channel)
        grey = contrast(mean_of([whole], size, shape), gamma=GAMMA)
        labels = self.done.labels[np.ix_(nearest(shape[0], size[0]), nearest(width, size[1]))]
        panel = outlined(grey_panel(grey), labels, self.classes)
        bar = scale_bar(size[1], width, self.pixel_size_um)
        return np.concatenate([panel, draw_strip(width, self.caption, bar)])


def _look_within(run: TaskRun, number: Number, name: str) -> _Look:
    """See `_look`; FrameError also where it gives no sign of life within the limit."""
    limit = limit_of(run.task.context.timeout)
    try:
        return watched(partial(_look, run, number, name), run.pulse, limit, PLANNING)
    except Hung as hung:
        forget_stack(run.plan)  # it may hold what closing it would wait for
        raise FrameError(f"did not end within {hung.seconds:g} s; {ADVICE}") from hung


def _look(run: TaskRun, number: Number, name: str) -> _Look:
    plan, spec = run.plan, run.model.spec
    block = _block(plan, number)
    survey = lru_cache(partial(survey_frame, run)) if plan.layout.is_cut else None
    source = Network(run, block, survey)
    frame = run.tried(*number, lambda: source.predict(*number))
    channel = plan.channels[0]
    # The edge of a region is no border of the frame.
    postprocessing = replace(
        plan.postprocessing,
        clear_border=plan.postprocessing.clear_border and not plan.layout.is_cut,
    )
    done = label_whole(
        frame.pixels,
        channel,
        frame.probability,
        spec,
        postprocessing,
        plan.pixel_area_um2,
        run.watch,
    )
    row = done.measures
    objects, fraction = row.get("objects"), row["foreground_fraction"]
    told = Sample(
        name,
        None if objects is None else int(objects),
        row.get("area_median_px"),
        float(fraction or 0.0),
    )
    classes = () if postprocessing.gives_instances else tuple(
        LabelClass(n, c.name, rgb_of(c.color)) for n, c in enumerate(spec.classes)
    )  # fmt: skip
    pixel = plan.info.pixel_size_um.get("X")
    return _Look(
        frame.pixels[channel], done, told, classes, _caption(plan, number, block, told), pixel
    )


def _block(plan: StackPlan, number: Number) -> Block:
    """What is looked at of a frame: all of it, or its middle region."""
    layout = plan.layout
    t, z = number[0] - layout.t0, number[1] - layout.z0
    _, _, down, across = layout.grid
    at = (t // layout.block_size[0], z // layout.block_size[1], down // 2, across // 2)
    block = layout.block(layout.number(at))
    return replace(block, t=(number[0], number[0] + 1), z=(number[1], number[1] + 1))


def _caption(plan: StackPlan, number: Number, block: Block, told: Sample) -> str:
    layout, step = plan.layout, plan.info.time_step_s
    parts = [plan.name]
    parts += [f"{a.lower()} {n}" for a, n in zip("TZ", number, strict=True) if a in layout.axes]
    if step and "T" in layout.axes:
        parts.append(time_text(number[0], step, layout.t0 + layout.sizes[0] - 1))
    if told.objects is not None:
        parts.append(f"{told.objects} objects")
    if layout.is_cut:
        parts.append(f"rows {block.y.start}:{block.y.stop}, columns {block.x.start}:{block.x.stop}")
    return " · ".join(parts)
