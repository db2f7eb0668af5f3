"""What a finished job leaves besides its labels: tables, `failures.json` and `job.json`."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from engine.errors import JobStopped, first_line
from engine.job.prepare import Prepared
from engine.measure.volumes import Volumes, voxel_ml
from engine.plan.plan import StackPlan
from engine.steps.registry import steps_of
from engine.store import tables
from engine.store.columns import STAGES, frames_schema, objects_schema, volumes_schema
from engine.store.committed import (
    block_record,
    objects_key,
    record_key,
    records_hash,
    stitch_key,
    stitch_record,
    store_of,
)
from engine.store.folder import FAILURES, IDENTITY, PRIVATE, REPORT, TABLES, JobFolder, key_of
from engine.store.object_store import digest_of
from engine.store.ome_zarr import LABEL_LIST, metadata_keys
from engine.store.records import BlockRecord, FrameRecord, Row, StitchRecord, TimingRecord
from engine.store.reports import (
    Counts,
    FailedFrame,
    Failures,
    JobReport,
    Machine,
    Predicted,
    Refused,
    ReportedInput,
    ReportedModel,
    ReportedSettings,
    Resolved,
)

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
class RunTotals:
    """What one run of a job did; a resumed job has several."""

    started: float  # seconds since 1970
    frames: float = 0.0
    failed: int = 0
    seconds: float = 0.0


def write_report(folder: JobFolder, job: Prepared, run: RunTotals) -> JobReport:
    """Write every table and report from the records; `job.json` last, which ends the job."""
    try:
        totals = _write_tables(folder, job)
        refused = tuple(Refused(input=path, reason=reason) for path, reason in job.plan.refused)
        failures = Failures(stacks=refused, frames=tuple(totals.failures))
        folder.put_record(FAILURES, failures)
        folder.forget_work()
        report = _report(folder, job, run, totals, failures)
        report = report.model_copy(update={"sha256": report.checksum()})
        folder.put_record(REPORT, report)
    except OSError as error:
        raise JobStopped(
            f"{folder.root}: the tables cannot be written ({error.strerror}); "
            "run the same command again"
        ) from error
    except pa.ArrowException as error:
        raise JobStopped(
            f"{folder.own.where(PRIVATE)}/objects: holds a damaged part ({first_line(error)}); "
            "remove it, and run the same command again to have it made"
        ) from error
    return report


class _Totals:
    """What adds up while the records go by, on their way into the tables."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  # by field of `Counts`
        self.failures: list[FailedFrame] = []
        self.pixels: dict[str, Any] = defaultdict(hashlib.sha256)  # of frames' hashes, by stack
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.volumes: dict[str, Volumes] = {}  # of stacks with a Z axis
        self.attempts: dict[str, int] = {}  # that took more than one, by "stack step index"

    def begin(self, stack: StackPlan) -> None:
        """The frames of this stack come next."""
        layout, voxel = stack.layout, voxel_ml(stack.info.pixel_size_um)
        if "Z" in layout.axes:
            pixels = layout.sizes[2] * layout.sizes[3]
            self.volumes[stack.name] = Volumes(stack.class_names, pixels, voxel)

    def add_frame(self, stack: str, frame: FrameRecord) -> None:
        """Count a frame."""
        if stack in self.volumes:
            self.volumes[stack].add(frame.t, None if frame.failed else frame.measures)
        self.counts["frames"] += 1
        self.counts["missing_chunks"] += frame.missing_chunks or 0
        self.pixels[stack].update((frame.sha256 or "failed").encode())
        if frame.failed:
            self.counts["failed"] += 1
            reason = frame.reason or ""
            self.failures.append(FailedFrame(stack=stack, t=frame.t, z=frame.z, reason=reason))

    def add_timing(self, stack: str, step: str, index: int, timing: TimingRecord) -> Row:
        """Count what a task took; its row of the timings table."""
        seconds = {k: v for k, v in timing.seconds.items() if k in self.seconds}
        for stage, value in seconds.items():
            self.seconds[stage] += value
        if timing.attempts > 1:
            self.attempts[f"{stack} {step} {index}"] = timing.attempts
        fixed = {"attempts": timing.attempts, "tile": timing.tile or None}
        timed = {f"{stage}_s": value for stage, value in seconds.items()}
        return {"stack": stack, "step": step, "index": index, **fixed, **timed}


def _write_tables(folder: JobFolder, job: Prepared) -> _Totals:
    totals, stacks = _Totals(), job.plan.stacks

    def frames() -> Iterator[Row]:
        for stack in stacks:
            totals.begin(stack)
            for record in _records(folder, stack):
                for frame in record.frames or ():
                    totals.add_frame(stack.name, frame)
                    yield frame.row(stack.name)
                totals.counts["objects"] += record.n_objects

    def parts() -> Iterator[BinaryIO]:
        for stack in stacks:
            layout = stack.layout
            count = layout.n_stitch_groups if layout.is_stitched else layout.n_blocks
            for index in range(count):
                yield folder.own.open(objects_key(stack.name, index))

    def timings() -> Iterator[Row]:
        """A row for each task, added to the totals as it is written."""
        steps = [step.name for step in steps_of(job.plan)]
        for stack in stacks:
            for step in steps:
                kind = f"timings/{stack.name}"
                for index in folder.numbers(kind, step):
                    # Timings commit nothing: what is damaged in them counts as lost.
                    timing = folder.record(TimingRecord, key_of(kind, step, index))
                    yield totals.add_timing(
                        stack.name, step, index, timing or TimingRecord(seconds={})
                    )

    # Of one model all stacks give labels of one kind.
    classes = job.model.spec.class_names if stacks[0].class_map else ()
    with (
        folder.own.writing("frames.parquet") as parquet,
        folder.own.writing("frames.csv") as text,
    ):
        tables.write_rows(parquet, text, frames(), frames_schema(classes))
    with (
        folder.own.writing("volumes.parquet") as parquet,
        folder.own.writing("volumes.csv") as text,
    ):
        rows = (row for name, one in totals.volumes.items() for row in one.rows(name))
        tables.write_rows(parquet, text, rows, volumes_schema())
    with folder.own.writing("objects.parquet") as path:
        tables.write_objects(path, parts(), _objects_schema(stacks))
    with folder.own.writing("timings.parquet") as path:
        tables.write_timings(path, timings())
    return totals


def _objects_schema(stacks: Sequence[StackPlan]) -> pa.Schema:
    """Columns for the channels of all stacks, each under the names that it has in any of them."""
    names: dict[int, list[str]] = {c: [] for stack in stacks for c in stack.measured}
    for stack in stacks:
        for c in stack.measured:
            names[c] += stack.info.channel_names[c : c + 1]
    return objects_schema(
        sorted(names), {c: " | ".join(dict.fromkeys(of_c)) for c, of_c in names.items()}
    )


def _records(folder: JobFolder, stack: StackPlan) -> Iterator[BlockRecord | StitchRecord]:
    """The records with a stack's frames, in order; JobStopped where one is gone."""
    for block in stack.layout.blocks():
        record = block_record(folder, stack, block)
        if record is None:
            raise _gone(folder, record_key(stack.name, block.index))
        if not stack.layout.is_stitched:
            yield record
    for group in stack.layout.stitch_groups() if stack.layout.is_stitched else ():
        stitched = stitch_record(folder, stack.name, group)
        if stitched is None:
            raise _gone(folder, stitch_key(stack.name, group.index))
        yield stitched


def _gone(folder: JobFolder, key: str) -> JobStopped:
    return JobStopped(
        f"{folder.own.where(key)}: is gone or damaged; run the same command again to have it made "
        "again"
    )


def _checksums(folder: JobFolder, job: Prepared) -> Iterator[tuple[str, str]]:
    """Of every object that is no record: tables, failures, metadata, identity; by its name."""
    for key in (*TABLES, IDENTITY):
        yield key, digest_of(folder.own, key)
    for stack in job.plan.stacks:
        for key in metadata_keys(stack.arrays, added=folder.is_added):
            if key != LABEL_LIST:
                key = f"{store_of(stack.name)}/{key}"
                yield folder.name_of(key), digest_of(folder.results, key)


def _report(
    folder: JobFolder, job: Prepared, run: RunTotals, totals: _Totals, failures: Failures
) -> JobReport:
    plan = job.plan
    return JobReport(
        counts=Counts(**{name: totals.counts[name] for name in Counts.model_fields}),
        settings=ReportedSettings(**job.settings.model_dump(), resolved=_resolved(job)),
        model=ReportedModel(path=str(job.model.path), sha256=job.model.sha256, spec=job.model.spec),
        inputs=tuple(_input(stack, totals) for stack in plan.stacks),
        refused=failures.stacks,
        notes=plan.notes,
        predicted=Predicted(
            memory_bytes=plan.memory.peak,
            device_memory_bytes=plan.memory.device_peak,
            disk_bytes=plan.disk_bytes,
        ),
        machine=machine(),
        versions={
            "stackseg": version("stackseg"),
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.started)),
        seconds=run.seconds,
        frames_in_this_run=run.frames,
        frames_per_second=run.frames / run.seconds if run.seconds else 0.0,
        seconds_by_stage=totals.seconds,
        attempts=totals.attempts,
        files_sha256=dict(_checksums(folder, job)),
        records_sha256=records_hash(folder, plan.stacks),
    )


def _input(stack: StackPlan, totals: _Totals) -> ReportedInput:
    described = {f.name for f in fields(stack.info)} & ReportedInput.model_fields.keys()
    values = {name: getattr(stack.info, name) for name in described} | {
        "name": stack.name,
        "path": stack.path,
        "channels": stack.channels,
        "measured_channels": stack.measured,
        "labels_shape": stack.layout.shape,
        "tile": stack.tiling.tile_shape,
        "halo": stack.tiling.halo,
        "postprocessing": stack.postprocessing,
        "pixels_sha256": totals.pixels[stack.name].hexdigest(),
        "window": stack.window,
        "identifiers": dict(stack.identifiers),
        "volumes_ml": _volumes(totals, stack.name),
    }
    return ReportedInput.model_validate(values)


def _volumes(totals: _Totals, stack: str) -> dict[str, tuple[Any, ...]]:
    """Volumes in ml by class, one for each time point; of stacks that tell none, nothing."""
    found: dict[str, tuple[Any, ...]] = {}
    for row in totals.volumes[stack].rows(stack) if stack in totals.volumes else ():
        name = str(row["class"])
        found[name] = (*found.get(name, ()), row["volume_ml"])
    return {name: values for name, values in found.items() if any(v is not None for v in values)}


def _resolved(job: Prepared) -> Resolved:
    """What is the same for all stacks; areas in um differ in px from stack to stack."""
    first, *others = (asdict(stack.postprocessing) for stack in job.plan.stacks)
    shared = {k: v for k, v in first.items() if all(one[k] == v for one in others)}
    return Resolved(
        **shared,
        workers=job.plan.workers,
        threads=job.plan.threads,
        device=job.site.target.device,
        runtime=job.runtime,
    )


def machine() -> Machine:
    """The machine a figure was measured on."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux
    system = f"{platform.system()} {platform.release()}"
    return Machine(processor=model, cores=os.cpu_count(), system=system)
