"""What `segment`, `plan`, `merge` and `relabel` do once their options are read."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from engine.errors import UsageError
from engine.job.executors import dask_cluster
from engine.job.job import merge_job, run_job
from engine.job.prepare import Prepared, prepare_job
from engine.job.progress import JsonProgress, LineProgress, Progress, SilentProgress
from engine.job.run import JobSummary
from engine.plan.footprint import MB
from engine.plan.plan import Plan, check_apart
from engine.plan.settings import JobSettings, job_settings, parse_frames
from engine.store.claim import check_writable
from engine.store.folder import RELABELLED, JobFolder

log = logging.getLogger("stackseg")


def settings(frames: str | None, **options: Any) -> JobSettings:
    """JobSettings from the command line."""
    given = {name: value for name, value in options.items() if value is not None}
    return job_settings(frames=parse_frames(frames), **given)


def segment(settings: JobSettings, *, quiet: bool, json_log: Path | None) -> int:
    """Run the job, tell how it goes on stderr and what it made on stdout; the exit status."""
    if json_log is not None:
        _check_log(json_log, settings)
    summary = run_job(settings, _progress(quiet, json_log))
    _tell(summary, settings.output)
    return summary.exit_status


def sample(settings: JobSettings, count: int, *, quiet: bool) -> int:
    """Segment a few frames, print what was found in each on stdout; the exit status."""
    from engine.commands.telling import counted
    from engine.results.pictures.sample import FIELDS, FOLDER, sample

    _hush(quiet)
    with counted("sample") as progress:
        samples, refused = sample(settings, count, None if quiet else progress)
    for reason in refused:
        click.echo(f"stackseg: {reason}", err=True)
    rows = [FIELDS, *(one.fields for one in samples)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(FIELDS))]
    for name, *values in rows:
        cells = (f"{v:>{w}}" for v, w in zip(values, widths[1:], strict=True))
        click.echo("  ".join([f"{name:<{widths[0]}}", *cells]))
    for one in samples:
        if one.reason:
            click.echo(f"stackseg: {one.name}: {one.reason}", err=True)
    click.echo(settings.output / FOLDER / "sample.png")
    log.info("this was a look, and no job has begun; the same command without --sample begins it")
    return 1 if refused or any(one.reason for one in samples) else 0


def merge(output: Path, *, quiet: bool) -> int:
    """Complete a job that shards have done; the exit status."""
    summary = merge_job(JobFolder(output), _progress(quiet))
    _tell(summary, output)
    return summary.exit_status


def relabel(result: Path, name: str, *, quiet: bool, json_log: Path | None, **options: Any) -> int:
    """Label a result anew, tell how it goes and what it made; the exit status."""
    from engine.job.relabel import relabel as relabel_job

    summary = relabel_job(result, name, _progress(quiet, json_log), **options)
    again = "mend them by `stackseg segment --retry-failed`, then relabel with --fresh"
    _tell(summary, result / RELABELLED / name, again)
    return summary.exit_status


def _progress(quiet: bool, json_log: Path | None = None) -> Progress:
    _hush(quiet)
    progress: Progress = SilentProgress() if quiet else LineProgress(sys.stderr)
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
    with ExitStack() as stack:
        site = None
        if settings.scheduler:
            site = stack.enter_context(dask_cluster(settings.scheduler)).site(settings.target)
        job = prepare_job(settings, site)
    if for_output:
        check_writable(settings.output)
        check_apart(job.plan, settings.output)
    for line in plan_lines(job):
        click.echo(line)
    for warning in job.plan.warnings:
        click.echo(f"stackseg: {warning}", err=True)
    for _, reason in job.plan.refused:
        click.echo(f"stackseg: {reason}", err=True)
    return 1 if job.plan.refused else 0


def plan_lines(job: Prepared) -> list[str]:
    """The plan in words."""
    plan, spec = job.plan, job.model.spec
    lines = [
        f"model     {spec.name}: {', '.join(c.name for c in spec.classes)}; {job.site.build}",
        f"stacks    {len(plan.stacks):,}, {plan.n_frames:,} frames, {plan.n_blocks:,} blocks",
    ]
    for stack in plan.stacks[:20]:
        shape = " x ".join(str(n) for n in stack.info.shape)
        tiling = stack.tiling
        height, width = tiling.tile_shape
        tiles = (
            f"regions of {stack.layout.block_size[2]} x {stack.layout.block_size[3]} px, "
            f"tiles of {height} x {width} px, halo {tiling.halo} px" if stack.layout.is_cut
            else "whole frames" if tiling.n_tiles == 1
            else f"{tiling.n_tiles} tiles of {height} x {width} px, halo {tiling.halo} px"
        )  # fmt: skip
        lines.append(
            f"  {stack.name}: {stack.info.axes} {shape} {stack.info.dtype}, "
            f"{stack.layout.n_frames:,} frames, {tiles}"
            + ("" if stack.layout.is_cut else f", {tiling.waste:.0%} halo and padding")
        )
    if len(plan.stacks) > 20:
        lines.append(f"  and {len(plan.stacks) - 20:,} more")
    lines += _needs(plan)
    return lines


def _needs(plan: Plan) -> list[str]:
    memory = plan.memory
    device = f", and {memory.device_peak / MB:,.0f} MB of the device's" if memory.device else ""
    return [
        f"workers   {plan.workers} blocks in flight, {plan.threads} threads each",
        f"memory    {memory.peak / MB:,.0f} MB: {(memory.base + memory.model) / MB:,.0f} MB and "
        f"{memory.per_worker / MB:,.0f} MB for each block in flight{device}",
        f"disk      about {plan.disk_bytes / MB:,.1f} MB, compressed",
    ]


def _tell(
    summary: JobSummary, output: Path, again: str = "--retry-failed does these again"
) -> None:
    """What came of a job; `again` says how frames that were set aside are mended."""
    for reason in summary.refused:
        click.echo(f"stackseg: {reason}", err=True)
    if summary.exit_status == 130:
        click.echo("stackseg: interrupted; run the same command again to go on", err=True)
        return
    if summary.waiting:
        log.info(
            "%d frames in %.1f s; other shards are not done yet: the last one completes the job, "
            "or `stackseg merge %s`", summary.frames_in_this_run, summary.seconds, output,
        )  # fmt: skip
        return
    if summary.already_complete:
        click.echo(f"{output}: already complete", err=True)
    else:
        earlier = summary.frames_done - summary.frames_in_this_run
        log.info(
            "%d frames in %.1f s, %.2f frames/s%s",
            summary.frames_in_this_run,
            summary.seconds,
            summary.frames_per_second,
            f"; {earlier} were done by an earlier run" if earlier else "",
        )
    if summary.missing_chunks:
        click.echo(
            f"stackseg: {summary.missing_chunks} chunks are missing from the inputs and were read "
            f"as background; {output / 'frames.csv'} tells in which frames",
            err=True,
        )
    if summary.frames_failed:
        click.echo(
            f"stackseg: {summary.frames_failed} of {summary.frames_done} frames were set aside; "
            f"see {output / 'failures.json'}; {again}",
            err=True,
        )
    for stack in summary.stacks:
        click.echo(stack)
