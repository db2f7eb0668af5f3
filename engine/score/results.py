"""A job's folder, seen from its labels: which stores it has, and what they were made from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import StackError, UsageError
from engine.records import PRIVATE
from engine.score.frames import Number, RecordedInput
from engine.score.zarrs import is_zarr


def job_of(path: Path) -> Path | None:
    """The folder of the job that `path` is, or lies in; UsageError where it is not complete.

    Frames that are still to be segmented would score as empty ones.
    """
    for folder in (path, *path.resolve().parents):
        if (folder / PRIVATE / "identity.json").is_file():
            if not (folder / "job.json").is_file():
                raise UsageError(f"{folder}: its job is not complete; run it to its end first")
            return folder
    return None


def stores_in(folder: Path) -> dict[str, Path]:
    """The results in a job's folder, by the name of their stack."""
    names = [str(i["name"]) for i in _inputs(folder)]
    if not names:
        found = sorted(folder.glob("*.zarr")) or sorted(folder.glob("*/*.zarr"))
        names = [p.relative_to(folder).as_posix().removesuffix(".zarr") for p in found]
    return {name: folder / f"{name}.zarr" for name in names}


def recorded_input(path: Path) -> RecordedInput | None:
    """What the store at or above `path` was made from, as far as its job says."""
    job = job_of(path)
    where = path.resolve()
    for told in _inputs(job) if job else ():
        store = (job or path).resolve() / f"{told['name']}.zarr"
        if where == store or store in where.parents:
            settings = _report(job).get("settings") or {}
            channels = told.get("channels") or [0]
            return RecordedInput(
                path=str(told["path"]),
                axes=settings.get("axes"),
                channel=int(channels[0]),
                connects_z=settings.get("connect") == "z",
            )
    return None


def frame_names(recorded: RecordedInput, numbers: Iterable[Number]) -> dict[Number, str]:
    """The file that each frame came from, where the stack was an image or a folder of them."""
    from engine.stacks.images import list_images

    path, numbers = Path(recorded.path), list(numbers)
    if not path.is_dir():
        return {numbers[0]: path.name} if len(numbers) == 1 else {}
    if is_zarr(path):
        return {}
    try:
        files = list_images(str(path))
    except StackError:
        return {}
    return {n: files[n[0]].name for n in numbers if n[0] < len(files) and n[1] == 0}


def _inputs(folder: Path | None) -> list[Mapping[str, Any]]:
    inputs = _report(folder).get("inputs")
    return [i for i in inputs if isinstance(i, dict)] if isinstance(inputs, list) else []


def _report(folder: Path | None) -> Mapping[str, Any]:
    try:
        content = json.loads(((folder or Path()) / "job.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
