"""What a job reports at its end: `job.json` and `failures.json`."""

from __future__ import annotations

import hashlib
from typing import ClassVar, Literal

from pydantic import Field

from engine.labels.postprocessing import Postprocessing
from engine.model.spec import ModelSpec
from engine.plan.settings import JobSettings
from engine.store.records import Part, Record, Sha256, encode


class Refused(Part):
    """An input that could not be segmented."""

    input: str
    reason: str


class FailedFrame(Part):
    """A frame that was set aside."""

    stack: str
    t: int
    z: int
    reason: str


class Failures(Record):
    """`failures.json`: all that was not segmented; written with job.json.

    Read by users, by all who read results, by `verify` and by relabelling.
    """

    stacks: tuple[Refused, ...] = ()
    frames: tuple[FailedFrame, ...] = ()


class Counts(Part):
    """What a job's records add up to."""

    frames: int
    failed: int
    objects: int
    missing_chunks: int


class Resolved(Part):
    """What settings resolved to; post-processing: None where stacks differ."""

    threshold: float | None = None
    min_area: int | None = None  # px
    max_area: int | None = None  # px
    instances: str | None = None
    objects: tuple[str, ...] | None = None
    fill_holes: bool | None = None
    clear_border: bool | None = None
    min_distance: float | None = None  # px
    seed_height: float | None = None  # px
    core_threshold: float | None = None
    growth: int | None = None  # px
    pinhole: int | None = None  # px
    unreached: str | None = None
    workers: int
    threads: int
    device: str
    runtime: str


class ReportedSettings(JobSettings):
    """Settings as they were given, and what they resolved to."""

    resolved: Resolved


class ReportedModel(Part):
    """The model that was used."""

    path: str
    sha256: Sha256
    spec: ModelSpec


class ReportedInput(Part):
    """A stack as it was opened; see `engine.stacks.base.StackInfo`."""

    name: str
    path: str
    format: str
    series: str
    series_name: str
    unused: tuple[str, ...]
    min_is_white: bool
    axes: str
    shape: tuple[int, ...]
    dtype: str
    channels: tuple[int, ...]  # that the model takes
    measured_channels: tuple[int, ...]
    channel_names: tuple[str, ...]
    pixel_size_um: dict[str, float]
    time_step_s: float | None
    labels_shape: tuple[int, ...]
    tile: tuple[int, int]  # px
    halo: int  # px
    postprocessing: Postprocessing
    pixels_sha256: Sha256  # over the hashes of its frames
    window: tuple[float, float] | None = None  # least and greatest value that the network saw
    identifiers: dict[str, str] = Field(default_factory=dict)  # see `engine.plan.inputs.Input`
    # By class: one for each time point, None where a plane of it was set aside.
    volumes_ml: dict[str, tuple[float | None, ...]] = Field(default_factory=dict)


class Predicted(Part):
    """What the plan promised."""

    memory_bytes: int
    device_memory_bytes: int = 0  # 0 where the network runs in the host's memory
    disk_bytes: int


class Machine(Part):
    """The machine a figure was measured on."""

    processor: str
    cores: int | None
    system: str


class JobReport(Record):
    """`job.json`, written last of all: a folder that has one holds a complete job.

    Read by users, by later runs, by all who read results, by `verify` and by relabelling.
    """

    keeps_none: ClassVar[bool] = True

    status: Literal["complete"] = "complete"
    counts: Counts
    settings: ReportedSettings
    model: ReportedModel
    inputs: tuple[ReportedInput, ...]
    refused: tuple[Refused, ...]
    notes: tuple[str, ...]
    predicted: Predicted
    machine: Machine
    versions: dict[str, str]
    started: str  # UTC, ISO 8601
    seconds: float
    frames_in_this_run: float
    frames_per_second: float
    seconds_by_stage: dict[str, float]
    attempts: dict[str, int]  # of tasks that took more than one, by "stack step index"
    files_sha256: dict[str, Sha256]  # of what is no record: tables, metadata, identity; by path
    records_sha256: Sha256  # over all records, see `engine.store.committed.records_hash`
    sha256: Sha256 = ""  # over all else in job.json

    def checksum(self) -> Sha256:
        """SHA-256 over all but `sha256`, which shows whether job.json has changed since."""
        return hashlib.sha256(encode(self.model_copy(update={"sha256": ""}))).hexdigest()
