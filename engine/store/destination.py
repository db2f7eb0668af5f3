"""Where a job's output goes: never over an input, and into a folder whose other files are named."""

from __future__ import annotations

from pathlib import Path

from engine.errors import OutputError
from engine.plan.plan import Plan
from engine.plan.settings import JobSettings
from engine.stacks.guard import some
from engine.stacks.inputs import given_path, places_of
from engine.store.committed import store_of
from engine.store.folder import IDENTITY, RELABELLED, JobFolder

SAMPLE = "sample"  # folder of the overlays of a few frames, which are drawn before a job begins


def check_apart(plan: Plan, output: Path, *others: str) -> None:
    """OutputError where a result would lie where an input does, which would be overwritten.

    The same holds for the folders named `others` in `output`.
    """
    inputs = {place: stack for stack in plan.stacks for place in places_of(stack.path)}
    # By each folder that an input lies in: of many thousands, no two are compared.
    holds = {folder: path for path in inputs for folder in path.parents}
    for name in (*(store_of(stack.name) for stack in plan.stacks), *others):
        result = (output / name).resolve()
        around = (p for p in result.parents if p in inputs and "Zarr" in inputs[p].info.format)
        taken = result if result in inputs else holds.get(result) or next(around, None)
        if taken is not None:
            raise OutputError(
                f"{result}: would be written over the input {inputs[taken].info.path}; "
                "give another --output"
            )


def foreign_files(settings: JobSettings, plan: Plan) -> str:
    """A sentence on what a folder holds that is about to become a job's; "" where it is empty.

    The user may have taken the folder for another, such as that of a truth. Hidden files and what
    the job reads are expected there.
    """
    root = settings.output
    if not root.is_dir() or JobFolder(root).own.exists(IDENTITY):
        return ""
    names = {path.name for path in root.iterdir() if not path.name.startswith(".")}
    names -= {SAMPLE, RELABELLED}
    if names:
        real = root.resolve()
        places = {place for one in plan.stacks for place in places_of(one.path)}
        # What was refused may hang, or be a loop of links: it is compared by its name alone.
        given = [*settings.inputs, settings.model, *(path for path, _ in plan.refused)]
        places |= {Path(given_path(path.removeprefix("@"))) for path in given}
        if real in places:  # a folder of frames, all of which are inputs
            return ""
        names -= {p.relative_to(real).parts[0] for p in places if real in p.parents}
    if not names:
        return ""
    return f"{root}: holds other files as well ({some(sorted(names))}), which are left as they are"
