"""Small stacks and jobs, and what a job left behind as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from scipy import ndimage

from engine.errors import OutputError
from engine.job.attempts import run_task
from engine.model.file import ModelFile
from engine.plan.resources import Site
from engine.plan.settings import JobSettings
from engine.runtimes.base import Session, Target
from engine.runtimes.registry import open_session
from engine.steps.task import Outcome, Task

TIMED = {"job.json", "timings.parquet"}  # files that tell times: they differ between runs


def blobs(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Smooth random uint16 images, (..., Y, X): half of each is foreground at 0.5."""
    rng = np.random.default_rng(seed)
    frames = rng.random((int(np.prod(shape[:-2], dtype=int)), *shape[-2:]))
    smooth = np.stack([ndimage.gaussian_filter(f, 3) for f in frames])
    smooth -= smooth.min(axis=(1, 2), keepdims=True)
    smooth *= 60000 / smooth.max(axis=(1, 2), keepdims=True)
    return smooth.reshape(shape).astype(np.uint16)


def write_stack(path: Path, data: np.ndarray, axes: str = "TYX") -> Path:
    tifffile.imwrite(path, data, metadata={"axes": axes}, photometric="minisblack")
    return path


def settings(inputs: Any, model: Path, output: Path, **changes: Any) -> JobSettings:
    paths = inputs if isinstance(inputs, list | tuple) else [inputs]
    return JobSettings(
        inputs=tuple(str(p) for p in paths), model=str(model), output=output, **changes
    )


CPU = Target("onnxruntime", "cpu")


def session(model: ModelFile, dtype: str = "uint16", threads: int = 1, **changes: Any) -> Session:
    """A session of ONNX Runtime on the CPU, for pixels of a type."""
    return open_session(model, dtype, replace(CPU, **changes), threads)


def site(cores: int = 1, memory_bytes: int = 2**33, **changes: Any) -> Site:
    """A machine to plan for."""
    return Site(cores, memory_bytes, **{"target": CPU, "build": "", "host": "", **changes})


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a job's folder that must be the same bytes whoever ran it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in TIMED
        and "timings" not in path.parts
        and not path.name.startswith("lock")
        and path.name != "settings.json"
    }


def labels_of(output: Path, name: str, model: str = "threshold") -> Any:
    return zarr.open_array(output / f"{name}.zarr/labels/{model}/0", mode="r")[...]


class Shuffled:
    """A serial executor that takes blocks in another order, and stops after some of them."""

    def __init__(self, seed: int, stop_after: int | None = None) -> None:
        self.seed, self.stop_after = seed, stop_after
        self.ran: list[int] = []
        self.tasks: list[tuple[str, int]] = []

    def run(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
        order = list(tasks)
        np.random.default_rng(self.seed).shuffle(order)  # type: ignore[arg-type]
        for task in order[: self.stop_after]:
            self.ran.append(task.index)
            self.tasks.append((task.step, task.index))
            outcome = run_task(task)
            assert outcome is not None
            yield outcome
        if self.stop_after is not None and self.stop_after < len(order):
            raise OutputError("out: the disk is full")
