"""Finished jobs, and stores that hold more than labels, for those who read results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from tests.conftest import make_threshold_model
from tests.engine import jobs

PIXEL, STEP = 0.5, 300.0  # um, s


def write_ome(path: Path, data: np.ndarray, axes: str) -> Path:
    """An OME-TIFF with pixel size and time step."""
    metadata = {
        "axes": axes, "PhysicalSizeX": PIXEL, "PhysicalSizeY": PIXEL,
        "TimeIncrement": STEP, "TimeIncrementUnit": "s",
    }  # fmt: skip
    tifffile.imwrite(path, data, ome=True, metadata=metadata, photometric="minisblack")
    return path


def make_result(folder: Path, stacks: list[Path], **changes: Any) -> Path:
    """Run a job of the threshold model over `stacks`; its folder, `folder`/out."""
    model = make_threshold_model(folder / "threshold.onnx")
    settings = jobs.settings(stacks, model, folder / "out", workers=1, **changes)
    assert run_job(settings, executor=SerialExecutor()).exit_status == 0
    return folder / "out"


def add_group(
    store: Path,
    where: str,
    array: np.ndarray,
    axes: str,
    scale: list[float],
    *,
    first_t: int = 0,
    ome: dict[str, Any] | None = None,
    levels: int = 1,
) -> None:
    """Put an NGFF image into a store, beside what is there."""
    base = store / where if where else store
    datasets = []
    for n in range(levels):
        step = 2**n
        small = array[..., ::step, ::step]
        zarr.create_array(base / str(n), data=small, dimension_names=list(axes.lower()))
        steps = [s * (step if a in "YX" else 1) for s, a in zip(scale, axes, strict=True)]
        shift = [first_t * s if a == "T" else 0.0 for s, a in zip(steps, axes, strict=True)]
        datasets.append({"path": str(n), "coordinateTransformations": [
            {"type": "scale", "scale": steps}, {"type": "translation", "translation": shift},
        ]})  # fmt: skip
    kinds = {"T": "time", "C": "channel"}
    named = [{"name": a.lower(), "type": kinds.get(a, "space")} for a in axes]
    content = {"version": "0.5", "multiscales": [{"axes": named, "datasets": datasets}]}
    attributes = {"ome": content | (ome or {})}
    meta = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    (base / "zarr.json").write_text(json.dumps(meta))
