"""What `segment`, `plan`, `merge` and `relabel` do once their options are read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from engine.errors import INTERRUPTED, UsageError, plural
from engine.geometry.arrays import IMAGE
from engine.job.executors import cluster_of
from engine.job.fast import without_fast
from engine.job.job import merge_job, run_job
from engine.job.prepare import Prepared, prepare_job
from engine.job.progress import JsonProgress, LineProgress, Progress, counter
from engine.job.run import JobSummary
from engine.plan.footprint import MB
from engine.plan.plan import StackPlan
from engine.plan.settings import JobSettings, job_settings, parse_frames
from engine.store.claim import check_writable
from engine.store.destination import SAMPLE, check_apart, foreign_files
from engine.store.folder import JobFolder, relabelling

log = logging.getLogger("stackseg")


def settings(frames: str | None, **options: Any) -> JobSettings:
    """JobSettings from the command line."""
    given = {name: value for name, value in options.items() if value is not None}
    return job_settings(frames=parse_frames(frames), **given)


def segment(settings: JobSettings, *, quiet: bool, json_log: Path | None) -> int:
    """Run the job, with its progress on stderr and its results on stdout; the exit status."""
    if json_log is not None:
        _check_log(json_log, settings)
    task = settings.array_task
    summary = run_job(settings, _progress(quiet, json_log))
    retry = "repeat them with --retry-failed"
    _report(summary, settings.output, f"{retry}, without --array-task" if task else retry)
    return summary.exit_status


def sample(settings: JobSettings, count: int, *, quiet: bool) -> int:
    """Segment a few frames and print a line for each on stdout; the exit status."""
    from engine.commands.columns import print_columns
    from engine.results.pictures.sample import FIELDS, sample

    _hush(quiet)
    with counter("sample") as progress:
        samples, refused = sample(settings, count, progress)
    for reason in refused:
        _note(reason)
    print_columns(FIELDS, [one.fields for one in samples], left=1)
    for one in samples:
        if one.reason:
            _note(f"{one.name}: {one.reason}")
    click.echo(settings.output / SAMPLE / "sample.png")
    log.info("no job has begun; run the same command without --sample to begin it")
    return 1 if refused or any(one.reason for one in samples) else 0


def merge(output: Path, *, quiet: bool) -> int:
    """Complete a job that a job array has done; the exit status."""
    summary = merge_job(JobFolder(output), _progress(quiet))
    _report(summary, output, "run the job's `stackseg segment` with --retry-failed")
    return summary.exit_status


def relabel(result: Path, name: str, *, quiet: bool, json_log: Path | None, **options: Any) -> int:
    """Label a result again, with progress on stderr and results on stdout; the exit status."""
    from engine.job.relabel import relabel as relabel_job

    summary = relabel_job(result, name, _progress(quiet, json_log), **options)
    repair = "run `stackseg segment --retry-failed` on the result, then relabel with --fresh"
    _report(summary, relabelling(result, name), repair)
    return summary.exit_status


def _progress(quiet: bool, json_log: Path | None = None) -> Progress:
    _hush(quiet)
    progress = Progress() if quiet else LineProgress()
    return progress if json_log is None else JsonProgress(json_log, progress)


def _hush(quiet: bool) -> None:
    if quiet:
        logging.getLogger("stackseg").setLevel(logging.WARNING)


def _check_log(path: Path, settings: JobSettings) -> None:
    taken = [Path(p).resolve() for p in (*settings.inputs, settings.model)]
    if any(path.resolve().is_relative_to(other) for other in taken):
        raise UsageError(f"--json-log {path}: is an input or the model; give another file")


def show_plan(settings: JobSettings, *, for_output: bool = False) -> int:
    """Print the plan; the exit status the job would end with if every frame went well."""
    with cluster_of(settings) as cluster:
        settings = without_fast(settings, cluster)
        job = prepare_job(settings, cluster.site(settings.target) if cluster else None)
    if for_output:
        check_writable(settings.output)
        check_apart(job.plan, settings.output)
    for line in plan_lines(job):
        click.echo(line)
    others = foreign_files(settings, job.plan) if for_output else ""
    for warning in (*job.plan.warnings, *([others] if others else [])):
        _note(warning)
    for _, reason in job.plan.refused:
        _note(reason)
    return 1 if job.plan.refused else 0


def plan_lines(job: Prepared) -> list[str]:
    """The plan in words."""
    plan, spec = job.plan, job.model.spec
    build = job.site.build + (f", model in {spec.lowered.precision}" if spec.lowered else "")
    lines = [
        f"model     {spec.name}: {', '.join(c.name for c in spec.classes)}; {build}",
        f"stacks    {len(plan.stacks):,}, {plural(plan.n_frames, 'frame')}, "
        f"{plural(plan.n_blocks, 'block')}",
    ]
    for stack in plan.stacks[:20]:
        shape = " x ".join(map(str, stack.info.shape))
        lines.append(
            f"  {stack.name}: {stack.info.axes} {shape} {stack.info.dtype}, "
            f"{plural(stack.layout.n_frames, 'frame')}, {_tiles(stack)}"
        )
        lines.append(f"    {_channels(stack)}")
        if stack.window:
            least, most = stack.window
            lines.append(f"    the network sees values limited to {least:g} to {most:g}")
        if chosen := stack.postprocessing.objects:
            lines.append(f"    writes a class map, and objects of {', '.join(chosen)} beside it")
    if len(plan.stacks) > 20:
        lines.append(f"  and {len(plan.stacks) - 20:,} more")
    memory = plan.memory
    once = f", {memory.compiling / MB:,.0f} MB to compile (once)" if memory.compiling else ""
    shared = f"{(memory.base + memory.model) / MB:,.0f} MB{once}"
    device = f", and {memory.device_peak / MB:,.0f} MB of the device's" if memory.device else ""
    return [
        *lines,
        f"workers   {plural(plan.workers, 'block')} in flight, "
        f"{plural(plan.threads, 'thread')} each",
        f"memory    {memory.peak / MB:,.0f} MB: {shared} and "
        f"{memory.per_worker / MB:,.0f} MB for each block in flight{device}",
        f"disk      about {plan.disk_bytes / MB:,.1f} MB, compressed",
    ]


def _tiles(stack: StackPlan) -> str:
    """How frames go through the network."""
    tiling, (_, _, rows, columns) = stack.tiling, stack.layout.block_size
    height, width = tiling.tile_shape
    tiles = f"tiles of {height} x {width} px, halo {tiling.halo} px"
    at_once = f", {stack.batch} at once" if stack.batch > 1 else ""
    if stack.layout.is_cut:
        return f"regions of {rows} x {columns} px, {tiles}{at_once}"
    frames = "whole frames" if tiling.n_tiles == 1 else f"{tiling.n_tiles} {tiles}"
    return f"{frames}{at_once}, {tiling.waste:.0%} halo and padding"


def _channels(stack: StackPlan) -> str:
    """Which channels are read and measured, and what that costs."""
    info, n = stack.info, stack.info.size("C")
    size = f"{stack.frame_bytes / MB:,.2f} MB a frame"
    if n == 1:
        return f"reads {size}" + ("" if stack.measured else ", measures no intensity")

    def named(numbers: Sequence[int]) -> str:
        names = dict(enumerate(info.channel_names))
        return ", ".join(f"{c} ({names[c]})" if names.get(c) else str(c) for c in numbers)

    measured = "all" if len(stack.measured) == n else named(stack.measured) or "none"
    least = stack.decoded_bytes(len(set(stack.channels)))
    keeps_image = any(array.kind == IMAGE for array in stack.arrays)
    saving = f" (with none {least / MB:,.2f} MB)" if least < stack.frame_bytes else ""
    return (
        f"reads {len(stack.channels_read)} of {n} channels, {size}; for the model: "
        f"{named(stack.channels)}; measured: {measured}"
        + ("; all are kept" if keeps_image else saving)
    )


def _report(summary: JobSummary, output: Path, repair: str) -> None:
    """Print how a job ended; `repair` says how to repeat frames that were set aside."""
    for reason in summary.refused:
        _note(reason)
    if summary.exit_status == INTERRUPTED:
        _note("interrupted; run the same command again to resume")
        return
    done = f"{plural(summary.frames_in_this_run, 'frame')} in {summary.seconds:.1f} s"
    if not summary.frames_in_this_run:
        done = "no frame was left to do"
    if summary.waiting:
        log.info(
            "%s; other array tasks are not done yet: the last one completes the job, or "
            "`stackseg merge %s`", done, output,
        )  # fmt: skip
        return
    if summary.already_complete:
        click.echo(f"{output}: already complete", err=True)
    else:
        earlier = summary.frames_done - summary.frames_in_this_run
        by_earlier = f"; {plural(earlier, 'frame')} by earlier runs" if earlier else ""
        if summary.frames_in_this_run:
            done += f", {summary.frames_per_second:.2f} frames/s"
        log.info("%s%s", done, by_earlier)
    if summary.missing_chunks:
        _note(
            f"{plural(summary.missing_chunks, 'chunk')} missing from the inputs, read as "
            f"background; see {output / 'frames.csv'} for the frames"
        )
    if summary.frames_failed:
        _note(_set_aside(summary, output, repair))
    for stack in summary.stacks:
        click.echo(stack)


def _set_aside(summary: JobSummary, output: Path, repair: str) -> str:
    """How many frames were set aside, and what helps them."""
    failed, unlike = summary.frames_failed, summary.frames_unlike
    were = "was" if failed == 1 else "were"
    text = (
        f"{failed:,} of {plural(summary.frames_done, 'frame')} {were} set aside; see "
        f"{output / 'failures.json'}"
    )
    if failed > unlike:
        text += f"; once the cause is gone, {repair}"
    if unlike:
        which = "for images" if failed == unlike else f"for {unlike:,} of them, images"
        text += (
            f"; {which} that differ from the first of their folder, segment the images one by "
            "one (FOLDER/*) into another --output"
        )
    return text


def _note(text: str) -> None:
    click.echo(f"stackseg: {text}", err=True)
