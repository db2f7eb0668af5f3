"""A job made ready: model checked, inputs opened, everything decided, nothing written."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import __version__
from engine.errors import OutputError, UsageError
from engine.inference.device_check import least_caution
from engine.job.ahead import importing
from engine.job.inputs import open_inputs
from engine.job.preflight import first_tile, inexact
from engine.model.file import ModelFile, open_model
from engine.plan.plan import Plan, StackPlan, make_plan
from engine.plan.postprocessing import check_postprocessing
from engine.plan.resources import Site, local_site
from engine.plan.settings import JobSettings
from engine.runtimes.base import Target
from engine.runtimes.registry import runtime_of
from engine.store.folder import SETTINGS, JobFolder
from engine.store.identity import JobIdentity, Selection, StackIdentity

if TYPE_CHECKING:
    from engine.job.executors import DaskExecutor

NO_LIMIT = 2**50  # bytes
log = logging.getLogger("stackseg")


@dataclass(frozen=True)
class Prepared:
    """A job that is ready to run."""

    settings: JobSettings
    model: ModelFile
    site: Site
    plan: Plan
    relabels: str = ""  # SHA-256 of what decides the probabilities that are labelled
    stores: Path | None = None  # folder of that job, into whose stores the labels go
    engines: tuple[str, ...] = ()  # hashes of what a runtime has built for this device alone

    @property
    def runtime(self) -> str:
        """The build of the runtime, and on a device all else that decides the last bits.

        Its libraries choose their kernels by the shape of a run.
        """
        parts = [self.site.build]
        if self.site.target.is_on_device:
            shapes = sorted({(one.batch, *one.tiling.tile_shape) for one in self.plan.stacks})
            told = [" x ".join(map(str, shape)) for shape in shapes]
            parts.append(f"runs of {' and '.join(told) if len(told) < 4 else _hashed(told)}")
        if self.engines:
            parts.append(f"engine {_hashed(self.engines)}")
        return ", ".join(parts)


def _hashed(texts: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(texts).encode()).hexdigest()[:16]


def prepare_job(settings: JobSettings, site: Site | None = None) -> Prepared:
    """Open model and inputs, and plan for `site`: this process where it is None."""
    model = open_model(settings.model)
    check_precision(model, settings.precision)
    site = site or local_site(settings.target)
    plan = plan_job(settings, model, site)
    return Prepared(settings, model, site, plan)


def check_precision(model: ModelFile, precision: str) -> None:
    """UsageError for a precision that cannot be asked of a model, since it has one of its own."""
    if model.spec.lowered is not None and precision != "fp32":
        raise UsageError(
            f"--precision {precision}: {model.path.name} is in {model.spec.lowered.precision} "
            "itself; omit it, or give the model in fp32"
        )


def plan_job(settings: JobSettings, model: ModelFile, site: Site) -> Plan:
    """Open every input, and plan. Raises StackError where no input can be opened."""
    check_postprocessing(settings, model.spec)
    inputs = open_inputs(settings, model)
    return make_plan(settings, model, inputs, site)


def prepare_merge(folder: JobFolder) -> Prepared:
    """A job as it was begun in a folder, to be completed without the network."""
    known, settings = folder.identity(), folder.settings()
    if known is None:
        raise OutputError(f"{folder.root}: holds no job that could be completed")
    if settings is None:
        raise OutputError(
            f"{folder.own.where(SETTINGS)}: is gone or damaged; run the `stackseg segment` of this "
            "job again, which writes it"
        )
    changes: dict[str, Any] = {
        "output": folder.root, "array_task": None, "device": "cpu", "scheduler": None,
        "retry_failed": False, "fresh": False, "workers": None, "memory": None,
    }  # fmt: skip
    # A tile is part of what a job is only where it is not exact.
    tiles = [stack.tile for stack in known.stacks.values() if stack.tile]
    settings = settings.model_copy(update=changes | ({"tile": tiles[0]} if tiles else {}))
    # No network runs here: the job's labels are those of the runtime of the array tasks, and what
    # that needed of memory is no matter.
    here = local_site(Target(device="cpu"))
    site = replace(here, build=known.runtime, memory_bytes=NO_LIMIT)
    try:
        return prepare_job(settings, site)
    except UsageError as error:
        where = folder.own.where(SETTINGS)
        raise OutputError(f"{where}: its job cannot be resumed ({error})") from error


def check_device(job: Prepared, cluster: DaskExecutor | None) -> Prepared:
    """Have the device give the right answer on one real tile, as carefully as it takes.

    Raises ModelError where it does not. See `engine.inference.device_check.least_caution`.
    """
    found = first_tile(job.model, job.plan, job.settings.timeout)
    if found is None:
        return job  # no frame can be read: each will say why
    dtype, tile, statistics = found
    target, threads = job.site.target, job.plan.threads
    what = dtype, target, tile, statistics, threads, job.plan.stacks[0].fixes_shape
    if cluster is None:
        with importing("distributed"):  # comes next, and takes as long
            check = least_caution(job.model, *what)
    else:
        check = cluster.least_caution(job.model.path, *what)
    caution, difference = check
    if caution:
        log.warning(
            "%s: graph optimisation is turned off, since with it the results were wrong",
            target.device,
        )
    log.debug("%s differs from the reference by %.2g at most", target.device, difference)
    target = replace(target, caution=caution)
    build = runtime_of(target.runtime).build(target)
    return replace(job, site=replace(job.site, target=target, build=build))


def identity(job: Prepared) -> JobIdentity:
    """What must be the same for a second run to resume the first: all that decides bytes."""
    return JobIdentity(
        stackseg=__version__,
        model=job.model.sha256,
        runtime=job.runtime,
        connect=job.settings.connect,
        labels=job.plan.stacks[0].labels.group,
        missing_chunks=job.settings.missing_chunks,
        relabels=job.relabels or None,
        stacks={stack.name: _identity(job.model, stack) for stack in job.plan.stacks},
    )


def _identity(model: ModelFile, stack: StackPlan) -> StackIdentity:
    info, layout = stack.info, stack.layout
    t, z, _, _ = layout.sizes
    return StackIdentity(
        path=stack.path,
        content=info.identity,
        axes=info.axes,
        series=info.series,
        pixel_size_um=info.pixel_size_um,
        time_step_s=info.time_step_s,
        channel=stack.channels,
        measured_channels=stack.measured,
        postprocessing=stack.postprocessing,
        frames=Selection(t=(layout.t0, layout.t0 + t), z=(layout.z0, layout.z0 + z)),
        layout=layout,
        arrays=stack.arrays,
        halo=stack.tiling.halo,
        window=stack.window,
        identifiers=dict(stack.identifiers),
        tile=stack.tiling.tile if inexact(model, stack.tiling) else None,
    )
