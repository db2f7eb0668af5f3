"""What a job is: the identity that a second run is held against, and the settings it began with."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field

from engine.geometry.arrays import ResultArray
from engine.geometry.layout import LabelLayout
from engine.labels.postprocessing import Postprocessing
from engine.plan.settings import JobSettings
from engine.store.records import Part, Record, Sha256


class Selection(Part):
    """The frames that are segmented: from the first to before the second, on each axis."""

    t: tuple[int, int]
    z: tuple[int, int]


class StackIdentity(Part):
    """All of a stack that decides bytes of its result."""

    path: str  # absolute
    content: str  # identity of the input, see `StackInfo.identity`
    axes: str
    series: str = ""
    pixel_size_um: dict[str, float]
    time_step_s: float | None = None
    channel: tuple[int, ...]  # that the model takes
    measured_channels: tuple[int, ...]  # ascending
    postprocessing: Postprocessing
    frames: Selection
    layout: LabelLayout
    arrays: tuple[ResultArray, ...]  # labels first
    halo: int  # px
    window: tuple[float, float] | None = None  # least and greatest value that the network sees
    identifiers: dict[str, str] = Field(default_factory=dict)  # kept where they are asked for
    tile: int | None = None  # px; None: tiling is exact, and may be another in each run


class JobIdentity(Record):
    """What must be the same for a second run to resume a job: all that decides bytes.

    Written when a job claims its folder; read by every run, by every worker (as a hash), by
    `verify` and by all who read results.
    """

    unversioned: ClassVar[str | None] = "none"  # as releases before the first version wrote it

    stackseg: str  # its version
    model: Sha256
    runtime: str
    connect: Literal["none", "z"]
    labels: str  # group of the label image, in the result of each stack
    missing_chunks: Literal["fail", "background"] = "fail"
    relabels: Sha256 | None = None  # of what decides the probabilities that are labelled again
    stacks: dict[str, StackIdentity]

    @property
    def label_image(self) -> str:
        """Name of the label image: the class map where there is one."""
        return self.labels.removeprefix("labels/")

    @property
    def label_images(self) -> tuple[str, ...]:
        """Names of all label images: objects may lie beside a class map."""
        arrays = next((stack.arrays for stack in self.stacks.values()), ())
        return tuple(a.group.removeprefix("labels/") for a in arrays if a.is_labels)


class Holdings(Part):
    """What a folder holds, as the identity of whatever version names it; read by --fresh."""

    model_config = ConfigDict(extra="ignore")

    labels: str
    stacks: dict[str, object]


class SettingsRecord(Record):
    """The settings with which a job began.

    Written by its first run; read by `merge`, which completes it, and by `relabel`.
    """

    settings: JobSettings
