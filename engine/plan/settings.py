"""Everything a user can say about a job, checked in one place and saved with every result."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from engine.errors import UsageError
from engine.plan.channels import ALL, parse_channels, parse_names
from engine.plan.quantities import parse_quantity
from engine.plan.window import parse_window
from engine.runtimes.base import Precision, Target


def _channels(text: str) -> str:
    parse_channels(text)
    return text


def _classes(text: str) -> str:
    parse_names(text)
    return text


def _window(text: str) -> str:
    parse_window(text)
    return text


def _area(given: int | str) -> int | str:
    value, unit = parse_quantity(given, 2)
    return int(value) if unit == "px" and value.is_integer() else given


def _largest_area(given: int | str | None) -> int | str | None:
    # "none" undoes the limit of the job whose probabilities are labelled again.
    return None if given in (None, "none") else _area(given)


def _length(given: float | str) -> float | str:
    value, unit = parse_quantity(given, 1)
    return value if unit == "px" else given


def _array_task(text: str) -> str:
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError("use I/N with I from 1 to N")
    return text


Method = Literal["components", "watershed", "cores", "none"]
Channels = Annotated[str, AfterValidator(_channels)]


class JobSettings(BaseModel):
    """Settings of one job as the user gave them; the plan holds what they resolve to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: Annotated[tuple[str, ...], Field(min_length=1)]
    model: str  # path of an ONNX file, or the name of a bundled model
    output: Path
    channel: Channels | None = None  # `1`, `GFP`, `0,2`, `"DAPI, 405"`; one per model channel
    measure: Channels = ALL  # channels whose intensities are measured: as `channel`, all or none
    window: Annotated[str, AfterValidator(_window)] | None = None  # "40,400", "file" or "none"
    axes: str | None = None  # overrides the metadata of every input
    series: str | None = None  # image of a TIFF file: a number, a name, "all" or "pages"
    frames: tuple[int | None, int | None] = (None, None)  # along T, or Z where there is no T
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None  # None: the model's own
    instances: Method | None = None  # None: the model's own
    objects: Annotated[str, AfterValidator(_classes)] | None = None  # "aorta", `aorta,"a, b"`
    min_area: Annotated[int | str, AfterValidator(_area)] | None = None  # px, or "12um2"
    max_area: Annotated[int | str | None, AfterValidator(_largest_area)] = None  # None: no limit
    fill_holes: bool = False  # background that an object encloses becomes foreground
    clear_border: bool = False  # drop objects that touch the frame's border
    min_distance: Annotated[float | str, AfterValidator(_length)] | None = None  # px, or "2.5um"
    seed_height: Annotated[float, Field(gt=0)] | None = None  # px; None: 1; watershed
    core_threshold: Annotated[float, Field(gt=0, lt=1)] | None = None  # of cores; None: the model's
    growth: Annotated[int, Field(ge=1, le=16)] | None = None  # px; None: the model's; cores
    pinhole: Annotated[int, Field(ge=0, le=32)] | None = None  # px; None: the model's; cores
    unreached: Literal["keep", "drop"] | None = None  # None: the model's; cores
    tile: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"  # px, halo included
    halo: Annotated[int, Field(ge=0)] | None = None  # px; None: what the model's graph needs
    missing_chunks: Literal["fail", "background"] = "fail"  # of a Zarr frame that has none
    connect: Literal["none", "z"] = "none"  # z: objects continue from plane to plane
    keep: Literal["probability"] | None = None  # store 8-bit probabilities with the labels
    keep_identifiers: bool = False  # PatientID and UIDs of DICOM get into the result
    with_image: bool = False  # copy the raw stack into the result
    workers: Annotated[int, Field(ge=1)] | None = None  # blocks in flight; None: one per core
    scheduler: str | None = None  # address or file of a Dask scheduler; None: in this process
    runtime: str = "auto"  # name in `engine.runtimes.registry`
    device: str = "auto"
    precision: Precision | Literal["fast"] = "fp32"  # fast: see `engine.job.fast`
    memory: str | None = None  # "8GB": the most that may be used; None: what is free
    grace: Annotated[float, Field(ge=0, le=86_400)] = 20.0  # s running blocks get after SIGTERM
    timeout: (  # s without progress after which a read is given up; see `engine.steps.hangs`
        Annotated[float, Field(gt=0, le=31 * 86_400)] | Literal["auto", "none"]
    ) = "auto"
    fresh: bool = False  # start over instead of resuming an unfinished job
    retry_failed: bool = False  # do the frames again that were set aside
    array_task: Annotated[str, AfterValidator(_array_task)] | None = None  # "3/8"

    @model_validator(mode="after")
    def _consistent(self) -> JobSettings:
        if self.fresh and self.retry_failed:
            raise ValueError("--retry-failed resumes a job and --fresh starts over; give only one")
        if self.array_task and (self.fresh or self.retry_failed):
            option = "--fresh" if self.fresh else "--retry-failed"
            raise ValueError(
                f"--array-task {self.array_task}: other tasks of the array may be running; run "
                f"once with {option} and without --array-task first"
            )
        return self

    @property
    def target(self) -> Target:
        """Where and how the network is to run, as asked for."""
        if self.precision == "fast":
            raise UsageError("--precision fast: stands for none until `engine.job.fast` finds it")
        return Target(self.runtime, self.device, self.precision)

    @property
    def array_share(self) -> tuple[int, int]:
        """(I, N): this run does blocks I, I + N, ... of all; (1, 1) where it does all."""
        number, _, count = (self.array_task or "1/1").partition("/")
        return int(number), int(count)

    @property
    def array_task_name(self) -> str:
        """The task of a job array as file names have it, "3-of-8"; "" where there is no array."""
        return (self.array_task or "").replace("/", "-of-")


def job_settings(**values: Any) -> JobSettings:
    """JobSettings from options; UsageError names the first wrong one."""
    try:
        return JobSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:  # of `_consistent`, whose messages name the options
            raise UsageError(message) from None
        option = str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"--{option}: {message} (got {first['input']!r})") from None


def parse_frames(text: str | None) -> tuple[int | None, int | None]:
    """Read "A:B", "A:" or ":B", half-open as in Python, negative from the end."""
    if not text:
        return None, None
    first, colon, last = text.partition(":")
    try:
        if not colon:
            raise ValueError(text)
        return (int(first) if first else None, int(last) if last else None)
    except ValueError:
        raise UsageError(
            f"--frames {text}: use A:B, the first frame and the one after the last"
        ) from None
