"""What a finished job leaves beside its labels: tables, `failures.json` and `job.json`."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.errors import JobStopped, first_line
from engine.job.prepare import Prepared
from engine.plan.plan import StackPlan
from engine.store import tables
from engine.store.claim import TABLES
from engine.store.columns import STAGES
from engine.store.committed import block_record
from engine.store.folder import JobFolder
from engine.store.ome_zarr import LABEL_LIST, metadata_keys

COUNTS = ("frames", "failed", "objects")
KEYS = {"status", "counts", "settings", "model", "inputs"}
LIBRARIES = (
    "numpy",
    "scipy",
    "scikit-image",
    "zarr",
    "tifffile",
    "imagecodecs",
    "dask",
    "onnx",
    "pyarrow",
)


@dataclass
class Run:
    """What one run of a job did; a resumed job has several."""

    started: float  # seconds since 1970
    frames: float = 0.0
    failed: int = 0
    seconds: float = 0.0


def read(folder: JobFolder) -> dict[str, Any] | None:
    """`job.json` of a complete job; None where the job has not come to its end."""
    try:
        content = json.loads((folder.root / "job.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    # One that is damaged is written again, from the records.
    if not isinstance(content, dict) or not content.keys() >= KEYS:
        return None
    counts = content["counts"]
    whole = isinstance(counts, dict) and all(isinstance(counts.get(name), int) for name in COUNTS)
    return content if whole else None


def write(folder: JobFolder, job: Prepared, run: Run) -> dict[str, Any]:
    """Write every table and report from the records; `job.json` last, which ends the job."""
    try:
        totals = _write_tables(folder, job)
        refused = [{"input": path, "reason": reason} for path, reason in job.plan.refused]
        failures = {"stacks": refused, "frames": totals.failures}
        folder.put_json(folder.root / "failures.json", failures)
        folder.forget_work()
        ended = _job_json(job, run, totals, refused)
        ended["files_sha256"] = dict(_checksums(folder, job))
        folder.put_json(folder.root / "job.json", ended)
    except OSError as error:
        raise JobStopped(
            f"{folder.root}: the tables cannot be written ({error.strerror}); "
            "run the same command again to go on"
        ) from error
    except pa.ArrowException as error:
        first = first_line(error)
        raise JobStopped(
            f"{folder.private / 'objects'}: holds a damaged part ({first}); remove it, and run "
            "the same command again to have it made"
        ) from error
    return ended


class _Totals:
    """What adds up while the records go by, on their way into the tables."""

    def __init__(self) -> None:
        self.frames = self.failed = self.objects = self.missing_chunks = 0
        self.failures: list[dict[str, Any]] = []
        self.pixels: dict[str, Any] = {}  # by stack: hash over the hashes of its frames
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.attempts: dict[str, int] = {}  # that took more than one, by "stack step index"

    def add_frame(self, row: dict[str, Any]) -> None:
        """Count a row of the frames table."""
        self.frames += 1
        self.missing_chunks += row.get("missing_chunks") or 0
        pixels = self.pixels.setdefault(row["stack"], hashlib.sha256())
        pixels.update(row.get("sha256", "failed").encode())
        if row["status"] == "failed":
            self.failed += 1
            self.failures.append({key: row[key] for key in ("stack", "t", "z", "reason")})


def _write_tables(folder: JobFolder, job: Prepared) -> _Totals:
    totals, spec = _Totals(), job.model.spec

    def frames() -> Iterator[dict[str, Any]]:
        for stack in job.plan.stacks:
            for record in _records(folder, stack):
                rows = record["frames"]
                objects = record.get("objects", sum(row.get("objects") or 0 for row in rows))
                totals.objects += objects
                for row in rows:
                    row["stack"] = stack.name
                    totals.add_frame(row)
                    yield row

    def parts() -> Iterator[Path]:
        for stack in job.plan.stacks:
            layout = stack.layout
            count = layout.n_stitch_groups if layout.is_stitched else layout.n_blocks
            for index in range(count):
                yield folder.place("objects", stack.name, index, ".parquet")

    def timings() -> Iterator[dict[str, Any]]:
        for stack in job.plan.stacks:
            for step in job.plan.steps:
                kind = folder.private / "timings" / stack.name / step
                found = sorted(kind.glob("*.json")) if kind.is_dir() else []
                for path in (p for p in found if p.stem.isdecimal()):
                    yield _timing(totals, stack, step, path, folder.read_json(path) or {})

    stacks = job.plan.stacks
    # Of one model all stacks give labels of one kind.
    classes = (
        () if stacks[0].postprocessing.gives_instances else tuple(c.name for c in spec.classes)
    )
    schema = tables.frames_schema(classes)
    with (
        folder.staged(folder.root / "frames.parquet") as parquet,
        folder.staged(folder.root / "frames.csv") as text,
    ):
        tables.write_frames(parquet, text, frames(), schema)
    with folder.staged(folder.root / "objects.parquet") as staged:
        tables.write_objects(staged, parts(), _objects_schema(stacks))
    with folder.staged(folder.root / "timings.parquet") as staged:
        tables.write_timings(staged, timings())
    return totals


def _objects_schema(stacks: Sequence[StackPlan]) -> pa.Schema:
    """Columns for the channels of all stacks, each under the names that it has in any of them."""
    most = max(len(stack.all_channels) for stack in stacks)
    names = [
        " | ".join(
            dict.fromkeys(s.info.channel_names[c] for s in stacks if c < len(s.info.channel_names))
        )
        for c in range(most)
    ]
    return tables.objects_schema(most, names)


def _records(folder: JobFolder, stack: StackPlan) -> Iterator[dict[str, Any]]:
    """The records with a stack's frames, in order; JobStopped where one is gone."""
    name = stack.name
    for block in stack.layout.blocks():
        record = block_record(folder, stack, block)
        if record is None:
            raise JobStopped(_gone(folder.place("records", name, block.index)))
        if not stack.layout.is_stitched:
            yield record
    if stack.layout.is_stitched:
        for stitch_group in stack.layout.stitch_groups():
            record = folder.stitch_record(name, stitch_group)
            if record is None:
                raise JobStopped(_gone(folder.place("stitched", name, stitch_group.index)))
            yield record


def _checksums(folder: JobFolder, job: Prepared) -> Iterator[tuple[str, str]]:
    """Of every file that has no record of its own: tables, failures, metadata; by its path."""
    files = [folder.root / name for name in TABLES]
    for stack in job.plan.stacks:
        keys = metadata_keys(stack.arrays, added=bool(stack.source))
        files += [folder.store(stack.name) / key for key in keys if key != LABEL_LIST]
    for path in files:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        yield Path(os.path.relpath(path, folder.root)).as_posix(), digest


def _gone(path: Path) -> str:
    return f"{path}: is gone or damaged; run the same command again to have it made again"


def _timing(
    totals: _Totals, stack: StackPlan, step: str, path: Path, told: dict[str, Any]
) -> dict[str, Any]:
    # Timings commit nothing: what is damaged in them counts as lost.
    given = told.get("seconds")
    seconds = {
        stage: value
        for stage, value in (given.items() if isinstance(given, dict) else ())
        if stage in totals.seconds and isinstance(value, int | float)
    }
    for stage, value in seconds.items():
        totals.seconds[stage] += value
    attempts = told.get("attempts")
    attempts = attempts if isinstance(attempts, int) else 1
    if attempts > 1:
        totals.attempts[f"{stack.name} {step} {int(path.stem)}"] = attempts
    where = {"stack": stack.name, "step": step, "index": int(path.stem)}
    tile = told.get("tile")
    took = {"attempts": attempts, "tile": tile if isinstance(tile, int) and tile else None}
    return {**where, **took, **{f"{stage}_s": value for stage, value in seconds.items()}}


def _input(stack: StackPlan, totals: _Totals) -> dict[str, Any]:
    info = stack.info
    return {
        "name": stack.name,
        "path": stack.path,
        "format": info.format,
        "series": info.series,
        "series_name": info.series_name,
        "unused": list(info.unused),
        "min_is_white": info.min_is_white,
        "axes": info.axes,
        "shape": list(info.shape),
        "dtype": info.dtype,
        "channels": list(stack.channels),
        "channel_names": list(info.channel_names),
        "pixel_size_um": info.pixel_size_um,
        "time_step_s": info.time_step_s,
        "labels_shape": list(stack.layout.shape),
        "tile": list(stack.tiling.tile_shape),
        "halo": stack.tiling.halo,
        "postprocessing": asdict(stack.postprocessing),
        "pixels_sha256": totals.pixels[stack.name].hexdigest(),
    }


def _job_json(
    job: Prepared, run: Run, totals: _Totals, refused: list[dict[str, str]]
) -> dict[str, Any]:
    plan = job.plan
    return {
        "status": "complete",
        "counts": {
            "frames": totals.frames,
            "failed": totals.failed,
            "objects": totals.objects,
            "missing_chunks": totals.missing_chunks,
        },
        "settings": {
            **job.settings.model_dump(mode="json"),
            "resolved": {
                **_shared_rules(plan.stacks),
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
        "inputs": [_input(stack, totals) for stack in plan.stacks],
        "refused": refused,
        "notes": list(plan.notes),
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
        "seconds_by_stage": totals.seconds,
        "attempts": totals.attempts,
    }


def _shared_rules(stacks: Sequence[StackPlan]) -> dict[str, Any]:
    """The rules that are the same for all stacks; areas in um differ in px from stack to stack."""
    each = [asdict(stack.postprocessing) for stack in stacks]
    return {name: v for name, v in each[0].items() if all(one[name] == v for one in each)}


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
