"""What a job keeps on its disk, as types. Each is one JSON object, put whole and never changed.

Every type says who writes it and who reads it. A record of another version is refused in one
sentence; one that is damaged counts as absent, so that what it stood for is done again (but for the
identity: who can't tell what job this is refuses).
"""

from __future__ import annotations

import json
from typing import ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from engine.errors import OutputError

Sha256 = str
Number = int | float | None
Row = dict[str, str | int | float | None]  # of a table, by column
VERSION = 1


class Part(BaseModel):
    """A piece of a record."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Record(Part):
    """An object on its own."""

    version: Literal[1] = 1
    keeps_none: ClassVar[bool] = False  # write fields without a value as null, not leave them out
    unversioned: ClassVar[str | None] = None  # version of one that has none; None: it is damaged
    # None: on one line. Of those a job has many, and C writes them in a tenth of the time.
    indent: ClassVar[int | None] = 1


AnyRecord = TypeVar("AnyRecord", bound=Record)


class RecordVersionError(OutputError):
    """A record that another version of stackseg wrote."""


def encode(record: Record) -> bytes:
    """A record as it is put."""
    content = record.model_dump(mode="json", exclude_none=not record.keeps_none)
    text = json.dumps(content, indent=record.indent)  # paths may hold what is not UTF-8
    return f"{text}\n".encode()


def decode(kind: type[AnyRecord], data: bytes, where: str) -> AnyRecord | None:
    """The record in `data`; None where it is damaged.

    RecordVersionError where another version wrote it.
    """
    try:
        content = json.loads(data)
        found = content.get("version", kind.unversioned)
        if found == VERSION:
            return kind.model_validate(content)
    except (ValueError, AttributeError, RecursionError):  # a ValidationError is a ValueError
        return None
    if found is None:
        return None
    raise RecordVersionError(
        f"{where}: was written by another version of stackseg (record version {found}; this one "
        f"reads {VERSION}); use that version for this job, or start over with --fresh"
    )


class FrameRecord(Part):
    """A frame in the record of its block or stitch group: its row of the frames table."""

    t: int  # the stack's own numbers, from 0
    z: int
    status: Literal["ok", "failed"]
    reason: str | None = None  # why it was set aside
    sha256: Sha256 | None = None  # of all pixels read
    missing_chunks: int | None = None  # that the input lacks, and that were read as its fill value
    blank: bool | None = None  # whether every channel that the network takes is constant
    measures: dict[str, Number] = {}  # columns of the frames table, see `engine.store.columns`

    @property
    def failed(self) -> bool:
        """Whether the frame was set aside: its labels are 0."""
        return self.status == "failed"

    @property
    def objects(self) -> int:
        """How many objects it has; 0 of a class map alone."""
        return int(self.measures.get("objects") or 0)

    def row(self, stack: str) -> Row:
        """The row of the frames table."""
        return {"stack": stack, **self.model_dump(exclude={"measures"}), **self.measures}


class BlockRecord(Record):
    """The commit of a block: written last, by the step `segment` or, of a stitched stack, `finish`.

    Read by the later steps, resuming, the tables, `verify` and relabelling.
    """

    indent = None
    block: int
    shards: dict[str, Sha256]  # by kind of array: labels, objects, image, probability
    objects_sha256: Sha256 | None = None  # of its part of the objects table
    frames: tuple[FrameRecord, ...] | None = None  # None: its stitch group has them

    @property
    def n_objects(self) -> int:
        """How many objects its frames have."""
        return sum(frame.objects for frame in self.frames or ())


class PartRecord(Record):
    """A block of a stitched stack with provisional labels; written by `segment`.

    Read by `stitch`, `finish` and `verify`; it goes when the job is complete.
    """

    indent = None
    block: int
    labels: dict[str, Sha256]  # of the provisional label images, by kind of array
    part_sha256: Sha256  # of its other arrays, see `engine.steps.part_store`
    shards: dict[str, Sha256]  # of what is kept besides labels, by kind of array
    count: int  # provisional labels
    frames: tuple[FrameRecord, ...]  # without measures


class StitchRecord(Record):
    """The frames of a stitch group, once its objects are whole; written by `stitch`.

    Read by `finish`, resuming, the tables, `verify` and relabelling.
    """

    indent = None
    stitch_group: int
    objects: int
    objects_sha256: Sha256
    frames: tuple[FrameRecord, ...]

    @property
    def n_objects(self) -> int:
        """How many objects it has; one that spans planes counts once."""
        return self.objects


class LevelRecord(Record):
    """The commit of a block of a level; written by `segment` for whole frames, else by its step.

    Read by the next level's step and by `verify`.
    """

    indent = None
    block: int
    parents: Sha256  # over the checksums of the shards below; another one: it is stale
    shards: dict[str, Sha256]


class SurveyRecord(Record):
    """Statistics of a cut frame; written by `survey`, read by `segment`."""

    indent = None
    frame: FrameRecord
    statistics: tuple[tuple[float, ...], ...] = ()  # (C, 2): low and high of each channel


class Death(Part):
    """How a process, or a thread, ended or hung before its task was done."""

    frame: tuple[int, int] | None = None  # (t, z) that it was at, if at any
    how: str  # "SIGSEGV", "exit status 3", or what it did not do in time
    kind: Literal["died", "hang", "unopened"] = "died"  # at a frame; or the input did not open


class AttemptRecord(Record):
    """There while a task is being done, with the deaths and hangs it has had.

    Written and read by `engine.job.attempts`.
    """

    indent = None
    deaths: tuple[Death, ...] = ()


class TimingRecord(Record):
    """What a task took; written by every step, read for `timings.parquet`. Commits nothing.

    Of a block of whole frames it includes what its levels took.
    """

    indent = None
    seconds: dict[str, float]  # by stage
    attempts: int = 1  # most tries that any frame took
    tile: int = 0  # px; the smallest tile that memory allowed, 0: as planned
