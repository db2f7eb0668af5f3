"""`--precision fast`: what it stands for here, checked on the job's own frames before it begins.

What `stackseg tune` found fast was right on the frames that it saw. Those of a job may be others,
so that labels of its first ones are made once more in float32. Where they do not agree, the next
setting is taken; float32 is not held against itself, and ends the search. A job that has begun
keeps to what it began with, and its labels are not compared again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from engine.errors import ModelError, UsageError, plural
from engine.inference.agreement import GATE, SAME, Agreement, Look, compare_all, label_all
from engine.job.preflight import first_looks
from engine.job.prepare import Prepared, check_device, check_precision, prepare_job
from engine.job.tuned import candidates, find
from engine.model.file import open_model
from engine.plan.settings import JobSettings
from engine.runtimes.base import Precision, Target
from engine.runtimes.registry import REFERENCE, runtime_of
from engine.store.folder import JobFolder

if TYPE_CHECKING:
    from engine.job.executors import DaskExecutor

log = logging.getLogger("stackseg")


class Choice(NamedTuple):
    """A setting that `--precision fast` may stand for."""

    runtime: str
    precision: Precision

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}"


def prepare_checked(settings: JobSettings, cluster: DaskExecutor | None = None) -> Prepared:
    """A job whose device has given right answers, here or on a cluster's workers.

    With `--precision fast` its settings name the runtime and the precision that were taken. Raises
    what `prepare_job` and `check_device` do, and UsageError where nothing was tuned.
    """
    if settings.precision != "fast":
        return _checked(settings, cluster)
    begun = _begun(settings)
    if begun:
        return _checked(_first(settings, begun, cluster), cluster)
    reason: Exception | str = ""
    for choice in _choices(settings, "", cluster):
        if reason:
            log.warning("%s; --precision fast takes %s", reason, choice)
        try:
            job = _checked(_with(settings, choice), cluster)
        except ModelError as error:  # of a device that does not compute what it should
            reason = error
            continue
        reason = "" if choice.precision == "fp32" else _difference(job, choice, cluster)
        if not reason:
            return job
    raise ModelError(f"--precision fast: {reason}; use --precision fp32")


def without_fast(settings: JobSettings, cluster: DaskExecutor | None = None) -> JobSettings:
    """The settings with what is tried first in place of `--precision fast`; checks no labels."""
    if settings.precision != "fast":
        return settings
    return _first(settings, _begun(settings), cluster)


def choices_here(model: str, device: str, runtime: str, begun: str) -> list[Choice]:
    """What `--precision fast` may stand for in this process, in the order of trying.

    `begun` is the build of a job that has begun, or "": then it is what was tuned, and UsageError
    is raised where nothing was.
    """
    targets = candidates(device, runtime)
    if begun:
        return [
            Choice(one.runtime, one.precision)
            for one in targets
            if begun.partition(",")[0] in _builds(one)  # without what a device adds
        ]
    opened = open_model(model)
    check_precision(opened, "fast")
    tuned = find(opened, device)
    choices = [
        Choice(one.runtime, one.precision)
        for one in (tuned.choices if tuned else ())
        if runtime in ("auto", one.runtime)
    ]
    if not choices:
        options = "" if device == "auto" else f" --device {device}"
        raise UsageError(
            f"--precision fast: what is fast and right for {Path(model).name} on this machine is "
            f"not known; run `stackseg tune{options} {model} STACK` first, with frames like these"
        )
    return choices


def agreement(model: str, target: Target, looks: Sequence[Look], threads: int) -> Agreement:
    """How the labels of frames by a target agree with those of the reference."""
    opened = open_model(model)
    found, wanted = (label_all(opened, one, looks, threads) for one in (target, REFERENCE))
    return compare_all(found, wanted, looks)


def _checked(settings: JobSettings, cluster: DaskExecutor | None) -> Prepared:
    site = cluster.site(settings.target) if cluster else None
    return check_device(prepare_job(settings, site), cluster)


def _begun(settings: JobSettings) -> str:
    """The build of the job that has begun in the output folder, "" where there is none."""
    known = None if settings.fresh else JobFolder(settings.output).identity()
    return known.runtime if known else ""


def _builds(target: Target) -> list[str]:
    """The builds that a target may have, whatever caution it takes."""
    runtime = runtime_of(target.runtime)
    return [runtime.build(replace(target, caution=caution)) for caution in runtime.cautions]


def _first(settings: JobSettings, begun: str, cluster: DaskExecutor | None) -> JobSettings:
    choices = _choices(settings, begun, cluster)
    # Without the job's own build here, any will do: the job is refused, and both are named.
    return _with(settings, choices[0] if choices else Choice(settings.runtime, "fp32"))


def _choices(settings: JobSettings, begun: str, cluster: DaskExecutor | None) -> list[Choice]:
    model = str(open_model(settings.model).path) if cluster else settings.model
    what = (model, settings.device, settings.runtime, begun)
    if cluster is None:
        return choices_here(*what)
    first, *others = cluster.everywhere(choices_here, *what)
    if any(other != first for other in others):
        raise UsageError(
            "--precision fast: the workers were not tuned alike; name --runtime and --precision"
        )
    return first


def _with(settings: JobSettings, choice: Choice) -> JobSettings:
    return settings.model_copy(update=choice._asdict())


def _difference(job: Prepared, choice: Choice, cluster: DaskExecutor | None) -> str:
    """Why the labels of a job's first frames do not agree with float32, as a clause; or ""."""
    looks = first_looks(job.model, job.plan, job.settings.timeout)
    if not looks:
        return "none of the first frames has anything in it by which labels could be compared"
    what = (str(job.model.path), job.site.target, looks, job.plan.threads)
    found = cluster.somewhere(agreement, *what) if cluster else agreement(*what)
    frames = plural(len(looks), "frame")
    if found.f1 is None:
        return f"the first {frames} have no objects by which labels could be compared"
    told = f"F1 of {found.f1:.3f} at IoU {SAME:g} against fp32 in the job's first {frames}"
    if found.f1 < GATE:
        return f"{choice}: labels have an {told}, and {GATE:g} is needed"
    log.info("--precision fast is %s: %s", choice, told)
    return ""
