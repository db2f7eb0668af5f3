"""A job made ready: model checked, inputs opened, everything decided, nothing written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine import __version__
from engine.model_file import ModelFile, open_model
from engine.plan import Plan, make_plan
from engine.resources import Site, local_site
from engine.settings import JobSettings
from engine.tiling import FrameTiling


@dataclass(frozen=True)
class Prepared:
    """A job that is ready to run."""

    settings: JobSettings
    model: ModelFile
    site: Site
    plan: Plan


def prepare_job(settings: JobSettings, site: Site | None = None) -> Prepared:
    """Open model and inputs, and plan for `site`: this process where it is None."""
    model = open_model(settings.model)
    site = site or local_site(settings.device)
    plan = make_plan(settings, model, cores=site.cores, memory_bytes=site.memory_bytes)
    return Prepared(settings, model, site, plan)


def _inexact_tile(model: ModelFile, tiling: FrameTiling) -> dict[str, Any]:
    """An exact tiling changes no byte, and a job may go on with another; any other does."""
    if tiling.n_tiles == 1 or (model.halo is not None and tiling.halo >= model.halo):
        return {}
    return {"tile": list(tiling.tile_shape)}


def identity(job: Prepared) -> dict[str, Any]:
    """What must be the same for a second run to go on with the first: all that decides bytes."""
    return {
        "stackseg": __version__,
        "model": job.model.sha256,
        "runtime": job.site.runtime,
        "threshold": job.plan.rules.threshold,
        "min-area": job.plan.rules.min_area,
        "stacks": {
            stack.name: {
                "path": stack.path,
                "content": stack.info.identity,
                "axes": stack.info.axes,
                "channel": list(stack.channels),
                "frames": [stack.layout.t0, stack.layout.z0, *stack.layout.shape],
                "halo": stack.tiling.halo,
                **_inexact_tile(job.model, stack.tiling),
            }
            for stack in job.plan.stacks
        },
    }
