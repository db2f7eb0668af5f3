"""Labels from the probabilities that a job kept, by other post-processing, without the network.

    RESULT/NAME.zarr/labels/relabelled/0, 1, ...    a further label image
    RESULT/relabelled/relabelled/                   a job's folder: its tables, records, job.json

It is a job like any other, with the same steps, records and promises; where that one sends pixels
through the network, this one reads what it kept.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from engine.errors import OutputError, StackError, UsageError
from engine.geometry.arrays import IMAGE, PROBABILITY, arrays_of
from engine.geometry.tiling import FrameTiling
from engine.job.added import list_labels
from engine.job.job import run_prepared
from engine.job.prepare import Prepared
from engine.job.progress import Progress
from engine.job.run import JobSummary
from engine.labels.postprocessing import CONNECTS
from engine.model.file import model_without_graph
from engine.model.spec import NAME, ModelSpec
from engine.plan.channels import with_channels
from engine.plan.memory import Way, Workload, estimate, first_fit
from engine.plan.plan import Plan, StackPlan, predicted_disk
from engine.plan.postprocessing import (
    check_postprocessing,
    check_uncut,
    method_of,
    resolve_postprocessing,
    unused_settings,
)
from engine.plan.resources import local_site
from engine.plan.settings import JobSettings, job_settings
from engine.runtimes.base import MemoryNeeds, Target
from engine.stacks.base import StackInfo
from engine.stacks.guard import some
from engine.stacks.open import open_stack
from engine.store.claim import reading
from engine.store.committed import store_of
from engine.store.folder import FAILURES, IDENTITY, JobFolder, relabelling
from engine.store.identity import StackIdentity
from engine.store.reports import JobReport, ReportedInput


def relabel(
    result: Path, name: str, progress: Progress | None = None, **options: Any
) -> JobSummary:
    """Label a job's result again, or resume that.

    Parameters
    ----------
    result
        Folder of a complete job that kept probabilities.
    name
        Of the new label image, and of the folder of its tables.
    options
        Fields of JobSettings: other post-processing, `workers`, `memory`, `fresh`.

    Raises OutputError where there is no such job, or it kept no probabilities.
    """
    if not re.fullmatch(NAME, name):
        raise UsageError(f"--name {name!r}: use letters, digits, dots, dashes and underscores")
    if not JobFolder(result).own.exists(IDENTITY):
        what = "holds no job; give the --output of one"
        what = what if result.is_dir() else "is no folder; give the --output of a job"
        raise OutputError(f"{result}: {what}")
    with ExitStack() as opened:
        opened.enter_context(reading(JobFolder(result)))
        job = _prepare(result, name, options)
        folder = JobFolder(job.settings.output, result)
        begun = folder.own.exists(IDENTITY)
        for stack in job.plan.stacks:
            group = f"{store_of(stack.name)}/{stack.labels.group}"
            if not begun and folder.results.holds(group):
                where = folder.results.where(group)
                raise OutputError(f"{where}: is there already; give another --name")
        summary = run_prepared(job, folder, progress or Progress(), opened)
        # The last thing: what is not whole is not named.
        list_labels(JobFolder(result), (stack.name for stack in job.plan.stacks), folder)
    return summary


def _prepare(result: Path, name: str, options: dict[str, Any]) -> Prepared:
    source = JobFolder(result)
    known, report, begun = source.identity(), source.report(), source.settings()
    if known is None or report is None or begun is None:
        raise OutputError(f"{result}: its job is not complete; the same command resumes it")
    spec = report.model.spec
    if not spec.is_binary:
        raise OutputError(
            f"{result}: is a class map, which stackseg relabel cannot change; for objects of its "
            f"classes ({some(spec.class_names[1:])}), run stackseg segment with --objects and "
            "another --output"
        )
    if begun.connect != "none" and options.get("instances") not in (None, *CONNECTS):
        raise OutputError(
            f"{result}: its objects go on from plane to plane, which --instances "
            f"{options['instances']} cannot have; run stackseg segment without --connect z"
        )
    settings = _settings(result, name, begun, options, spec)
    check_postprocessing(settings, spec)
    stacks = tuple(
        _plan_stack(source, known.stacks[one.name], one, settings, spec, name)
        for one in report.inputs
    )
    # What the probabilities were made by is what these labels are made by.
    site = replace(local_site(Target(device="cpu")), build=known.runtime)
    stored = [
        Workload(
            with_channels(one.info, one.channels_read),
            one.layout,
            one.postprocessing,
            one.arrays,
            kept=one.kept,
        )
        for one in stacks
    ]
    ways = tuple(Way(one.tiling) for one in stacks)
    compiles = any(site.compiles(one.info.dtype, one.postprocessing) for one in stored)
    needs = estimate(stored, ways, MemoryNeeds(), None, compiles)
    choice = first_fit([(ways, needs)], stored, site, settings.workers, settings.memory)
    plan = Plan(
        stacks=stacks,
        refused=(),
        workers=choice.workers,
        threads=1,
        memory=choice.memory,
        disk_bytes=sum(predicted_disk(one) for one in stacks),
        warnings=(),
    )
    model = model_without_graph(report.model.path, report.model.sha256, spec)
    return Prepared(settings, model, site, plan, relabels=_kept_hash(source, report), stores=result)


def _kept_hash(source: JobFolder, report: JobReport) -> str:
    """Hash over what decides the kept bytes: the job's identity, and the frames that it lacks.

    Frames that had failed may have been mended since, without another input.
    """
    failures = report.files_sha256.get(FAILURES, "")
    return hashlib.sha256(f"{source.identity_hash()} {failures}".encode()).hexdigest()


def _settings(
    result: Path, name: str, begun: JobSettings, options: dict[str, Any], spec: ModelSpec
) -> JobSettings:
    """The settings of the job that kept the probabilities, but for what is given now."""
    own = {
        "output": relabelling(result, name), "keep": None, "with_image": False, "array_task": None,
        "retry_failed": False, "scheduler": None, "device": "cpu", "workers": None,
        "memory": None, "fresh": False,
    }  # fmt: skip
    given = {key: value for key, value in options.items() if value is not None}
    known = begun.model_dump()
    method = method_of(job_settings(**{**known, **own, **given}), spec)
    # Settings of the job that mean nothing with this method were not asked for now.
    left = {key: value for key, value in known.items() if key not in unused_settings(method)}
    return job_settings(**{**left, **own, **given})


def _plan_stack(
    source: JobFolder,
    identity: StackIdentity,
    recorded: ReportedInput,
    settings: JobSettings,
    spec: ModelSpec,
    name: str,
) -> StackPlan:
    kept = identity.arrays
    if not any(array.kind == PROBABILITY for array in kept):
        raise OutputError(
            f"{source.root}: kept no probabilities; run stackseg segment with --keep probability"
        )
    info = _info(identity, recorded, settings.axes)
    postprocessing = resolve_postprocessing(settings, spec, info)
    if identity.layout.is_cut:
        check_uncut(postprocessing, info)
    layout = identity.layout.of_kind(instances=not postprocessing.gives_classes)
    channels, measured = identity.channel, identity.measured_channels
    height, width = layout.sizes[2:]
    return StackPlan(
        name=recorded.name,
        info=info,
        path=identity.path,
        axes=settings.axes,
        channels=channels,
        measured=measured,
        channels_read=tuple(sorted({channels[0], *measured})),
        layout=layout,
        arrays=arrays_of(layout, f"labels/{name}"),
        tiling=FrameTiling(height, width, 1, 0, max(layout.block_size[2:])),
        postprocessing=postprocessing,
        window=identity.window,
        identifiers=identity.identifiers,
        class_names=spec.class_names,
        source=str(source.root.resolve()),
        kept=kept,
    )


def _info(identity: StackIdentity, recorded: ReportedInput, axes: str | None) -> StackInfo:
    """What the stack is: as recorded where its pixels were kept, else of the input, unchanged."""
    if any(array.kind == IMAGE for array in identity.arrays):
        known = recorded.model_dump(include={f.name for f in fields(StackInfo)} - {"window"})
        return StackInfo(**known, identity=identity.content)
    try:
        with open_stack(identity.path, axes, recorded.series or None) as stack:
            info = stack.info
    except StackError as error:
        raise OutputError(
            f"{error}; the objects' intensities are measured in it, unless it was kept by "
            "--with-image"
        ) from error
    if info.identity != identity.content:
        raise OutputError(
            f"{info.path}: has changed since it was segmented; its intensities would be another's"
        )
    return info
