"""What a finished job leaves beside its labels: tables, `failures.json` and `job.json`."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine import tables
from engine.errors import JobStopped
from engine.plan import StackPlan
from engine.prepare import Prepared
from engine.records import JobFolder, flush_file

LIBRARIES = ("numpy", "scipy", "zarr", "tifffile", "imagecodecs", "dask", "onnx", "pyarrow")


@dataclass
class Run:
    """What one run of a job did; a resumed job has several."""

    started: float  # seconds since 1970
    frames: int
    seconds: float = 0.0


def read(folder: JobFolder) -> dict[str, Any] | None:
    """`job.json` of a complete job; None where the job has not come to its end."""
    path = folder.root / "job.json"
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def write(folder: JobFolder, job: Prepared, run: Run) -> dict[str, Any]:
    """Write every table and report from the records; `job.json` last, which ends the job."""
    try:
        _write_tables(folder, job)
    except OSError as error:
        raise JobStopped(
            f"{folder.root}: the tables cannot be written ({error.strerror}); "
            "run the same command again to go on"
        ) from error
    totals = _Totals()
    inputs = [_input(folder, stack, totals) for stack in job.plan.stacks]
    refused = [{"input": path, "reason": reason} for path, reason in job.plan.refused]
    folder.put_json(folder.root / "failures.json", {"stacks": refused, "frames": totals.failures})
    ended = _job_json(folder, job, run, totals, inputs, refused)
    folder.put_json(folder.root / "job.json", ended)
    return ended


class _Totals:
    def __init__(self) -> None:
        self.frames = self.failed = self.objects = 0
        self.failures: list[dict[str, Any]] = []


def _records(folder: JobFolder, stack: StackPlan) -> Iterator[dict[str, Any]]:
    return (folder.record(stack.name, block) for block in stack.layout.blocks())


def _write_tables(folder: JobFolder, job: Prepared) -> None:
    staging = folder.private / "staging"
    staging.mkdir(parents=True, exist_ok=True)
    stacks, spec = job.plan.stacks, job.model.spec
    names = () if spec.is_binary else tuple(c.name for c in spec.classes)
    rows = (
        {"stack": stack.name, **row}
        for stack in stacks
        for record in _records(folder, stack)
        for row in record["frames"]
    )
    tables.write_frames(staging / "frames", rows, tables.frames_schema(names))
    parts = (folder.objects_path(s.name, b.index) for s, b in job.plan.blocks())
    tables.write_objects(staging / "objects.parquet", parts)
    timings = (
        {
            "stack": stack.name,
            "block": block.index,
            "frames": block.n_frames,
            **{f"{k}_s": v for k, v in folder.timings(stack.name, block).items()},
        }
        for stack, block in job.plan.blocks()
    )
    tables.write_timings(staging / "timings.parquet", timings)
    for name in ("frames.parquet", "frames.csv", "objects.parquet", "timings.parquet"):
        flush_file(staging / name)
        (staging / name).replace(folder.root / name)


def _input(folder: JobFolder, stack: StackPlan, totals: _Totals) -> dict[str, Any]:
    """The stack as it was read, with a hash over the pixels of its frames, in their order."""
    pixels = hashlib.sha256()
    for record in _records(folder, stack):
        for row in record["frames"]:
            totals.frames += 1
            totals.objects += row.get("objects") or 0
            pixels.update(row.get("sha256", "failed").encode())
            if row["status"] == "failed":
                totals.failed += 1
                where = {"stack": stack.name, "t": row["t"], "z": row["z"]}
                totals.failures.append({**where, "reason": row["reason"]})
    info = stack.info
    return {
        "name": stack.name,
        "path": str(Path(info.path).resolve()),
        "format": info.format,
        "axes": info.axes,
        "shape": list(info.shape),
        "dtype": info.dtype,
        "channels": list(stack.channels),
        "pixel_size_um": info.pixel_size_um,
        "time_step_s": info.time_step_s,
        "labels_shape": list(stack.layout.shape),
        "tile": list(stack.tiling.tile_shape),
        "halo": stack.tiling.halo,
        "pixels_sha256": pixels.hexdigest(),
    }


def _job_json(
    folder: JobFolder,
    job: Prepared,
    run: Run,
    totals: _Totals,
    inputs: list[dict[str, Any]],
    refused: list[dict[str, str]],
) -> dict[str, Any]:
    stages: dict[str, float] = dict.fromkeys(tables.STAGES, 0.0)
    for stack, block in job.plan.blocks():
        for stage, seconds in folder.timings(stack.name, block).items():
            stages[stage] += seconds
    plan = job.plan
    return {
        "status": "complete",
        "counts": {"frames": totals.frames, "failed": totals.failed, "objects": totals.objects},
        "settings": {
            **job.settings.model_dump(mode="json"),
            "resolved": {
                "threshold": plan.rules.threshold,
                "min_area": plan.rules.min_area,
                "workers": plan.workers,
                "threads": plan.threads,
                "device": job.site.device,
                "runtime": job.site.runtime,
            },
        },
        "model": {
            "path": str(job.model.path),
            "sha256": job.model.sha256,
            "spec": job.model.spec.model_dump(mode="json"),
        },
        "inputs": inputs,
        "refused": refused,
        "predicted": {"memory_bytes": plan.memory.peak, "disk_bytes": plan.disk_bytes},
        "machine": machine(),
        "versions": {
            "stackseg": version("stackseg"),
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.started)),
        "seconds": run.seconds,
        "frames_in_this_run": run.frames,
        "frames_per_second": run.frames / run.seconds if run.seconds else 0.0,
        "seconds_by_stage": stages,
    }


def machine() -> dict[str, Any]:
    """The machine a figure was measured on."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
    }
