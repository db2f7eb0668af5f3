"""Everything a user can say about a job, checked in one place and saved with every result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from engine.errors import UsageError
from engine.plan.channels import parse_channels
from engine.plan.quantities import parse_quantity
from engine.runtimes.base import Precision, Target


class JobSettings(BaseModel):
    """Settings of one job as the user gave them; what they resolve to stands in the plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: Annotated[tuple[str, ...], Field(min_length=1)]
    model: str  # path of an ONNX file, or the name of a bundled model
    output: Path
    channel: str | None = None  # `1`, `GFP`, `0,2`, `"DAPI, 405"`; one per model channel
    axes: str | None = None  # overrides the metadata of every input
    series: str | None = None  # image of a TIFF file: a number, a name, "all" or "pages"
    frames: tuple[int | None, int | None] = (None, None)  # along T, or Z where there is no T
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None  # None: the model's own
    instances: Literal["components", "watershed", "none"] | None = None  # None: the model's own
    min_area: int | str | None = None  # px, or "12um2"; None: the model's own
    max_area: int | str | None = None  # px, or "900um2"; None: however large
    fill_holes: bool = False  # background that an object encloses becomes foreground
    clear_border: bool = False  # drop objects that touch the frame's border
    min_distance: float | str | None = None  # px, or "2.5um"; None: the model's own; watershed
    seed_height: Annotated[float, Field(gt=0)] | None = None  # px; None: 1; watershed
    tile: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"  # px, halo included
    halo: Annotated[int, Field(ge=0)] | None = None  # px; None: what the model's graph needs
    missing_chunks: Literal["fail", "background"] = "fail"  # of a Zarr frame that has none
    connect: Literal["none", "z"] = "none"  # z: an object goes on from plane to plane
    keep: Literal["probability"] | None = None  # store 8-bit probabilities beside the labels
    with_image: bool = False  # copy the raw stack into the result
    workers: Annotated[int, Field(ge=1)] | None = None  # blocks in flight; None: one per core
    scheduler: str | None = None  # address or file of a Dask scheduler; None: in this process
    runtime: str = "auto"  # name in `engine.runtimes.registry`
    device: str = "auto"
    precision: Precision = "fp32"
    memory: str | None = None  # "8GB": the most that may be used; None: what is free
    grace: Annotated[float, Field(ge=0, le=86_400)] = 20.0  # s running blocks get after SIGTERM
    timeout: (  # s without progress after which a read is given up; see `engine.steps.hangs`
        Annotated[float, Field(gt=0, le=31 * 86_400)] | Literal["auto", "none"]
    ) = "auto"
    fresh: bool = False  # start over instead of going on with an unfinished job
    retry_failed: bool = False  # do the frames again that were set aside
    shard: Annotated[str, Field(pattern=r"^[0-9]+/[0-9]+$")] | None = None  # "3/8": a part of it

    @field_validator("channel")
    @classmethod
    def _channels(cls, given: str | None) -> str | None:
        if given is not None:
            parse_channels(given)
        return given

    @field_validator("min_area", "max_area")
    @classmethod
    def _area(cls, given: int | str | None, info: ValidationInfo) -> int | str | None:
        if given is None:
            return None
        if given == "none" and info.field_name == "max_area":
            return None  # takes back what a job had whose labels are made anew
        value, unit = parse_quantity(given, 2)
        return int(value) if unit == "px" and value.is_integer() else given

    @field_validator("min_distance")
    @classmethod
    def _length(cls, given: float | str | None) -> float | str | None:
        if given is None:
            return None
        value, unit = parse_quantity(given, 1)
        return value if unit == "px" else given

    @model_validator(mode="after")
    def _consistent(self) -> JobSettings:
        if self.shard is not None:
            number, count = self.shard_of
            if not 1 <= number <= count:
                raise ValueError(f"--shard {self.shard}: use I/N with I from 1 to N")
            if self.fresh or self.retry_failed:
                raise ValueError(
                    f"--shard {self.shard}: cannot start over or retry while other shards run; "
                    "give that option without --shard first"
                )
        if self.fresh and self.retry_failed:
            raise ValueError("--retry-failed: goes on with a job, and --fresh starts over")
        return self

    @property
    def target(self) -> Target:
        """Where and how the network is to run, as asked for."""
        return Target(self.runtime, self.device, self.precision)

    @property
    def shard_of(self) -> tuple[int, int]:
        """(I, N): this run does blocks I, I + N, ... of all; (1, 1) where it does all."""
        number, _, count = (self.shard or "1/1").partition("/")
        return int(number), int(count)


def job_settings(**values: Any) -> JobSettings:
    """JobSettings from options; UsageError names the first one that is wrong."""
    try:
        return JobSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # the rules between options name them
            raise UsageError(first["msg"].removeprefix("Value error, ")) from None
        option = str(first["loc"][0]).replace("_", "-")
        message = first["msg"].removeprefix("Value error, ")
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
