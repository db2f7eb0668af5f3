"""Records outlive the process that wrote them: read back as written, or refused in one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import OutputError
from engine.geometry.arrays import arrays_of
from engine.geometry.layout import make_layout
from engine.job.tuned import Measured, Tuned
from engine.labels.postprocessing import Postprocessing
from engine.plan.settings import JobSettings
from engine.store.identity import JobIdentity, Selection, SettingsRecord, StackIdentity
from engine.store.records import (
    VERSION,
    AttemptRecord,
    BlockRecord,
    Death,
    FrameRecord,
    LevelRecord,
    PartRecord,
    Record,
    RecordVersionError,
    StitchRecord,
    SurveyRecord,
    TimingRecord,
    decode,
    encode,
)
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
from tests import networks

LAYOUT = make_layout("TZYX", (3, 2, 40, 50), instances=True, first=(4, 1))
POSTPROCESSING = Postprocessing(0.5, max_area=900)
SETTINGS = JobSettings(inputs=("a\udcff.tif",), model="nuclei", output=Path("out"), frames=(4, 7))
FRAMES = (
    FrameRecord(
        t=4, z=1, status="ok", sha256="d" * 64, missing_chunks=0, blank=False,
        measures={"objects": 3, "area_mean_px": 7.0, "area_mean_um2": None, "odd": math.inf},
    ),
    FrameRecord(t=5, z=1, status="failed", reason="x\udcff.tif: is damaged"),
)  # fmt: skip
EXAMPLES: tuple[Record, ...] = (
    BlockRecord(block=1, shards={"labels": "a" * 64}, objects_sha256="b" * 64, frames=FRAMES),
    BlockRecord(block=2, shards={"labels": "a" * 64, "image": "b" * 64}),
    PartRecord(
        block=1, labels={"labels": "a" * 64}, part_sha256="b" * 64, shards={}, count=7,
        frames=FRAMES,
    ),
    StitchRecord(stitch_group=1, objects=7, objects_sha256="a" * 64, frames=FRAMES),
    LevelRecord(block=1, parents="a" * 64, shards={"image": "b" * 64}),
    SurveyRecord(frame=FRAMES[0], statistics=((0.1, 9.7),)),
    SurveyRecord(frame=FRAMES[1]),
    AttemptRecord(
        deaths=(
            Death(frame=(4, 1), how="SIGSEGV"),
            Death(frame=None, how="did not open", kind="unopened"),
        )
    ),
    TimingRecord(seconds={"read": 0.1}, attempts=2, tile=512),
    SettingsRecord(settings=SETTINGS),
    Failures(
        stacks=(Refused(input="b.tif", reason="is empty"),),
        frames=(FailedFrame(stack="a", t=5, z=1, reason="is damaged"),),
    ),
    JobIdentity(
        stackseg="0.9",
        model="c" * 64,
        runtime="onnxruntime 1.20 cpu",
        connect="none",
        labels="labels/nuclei",
        missing_chunks="background",
        stacks={
            "a": StackIdentity(
                path="/data/a.tif",
                content="1 2 3",
                axes="TZYX",
                pixel_size_um={"Y": 0.645, "X": 0.645},
                channel=(0,),
                measured_channels=(0,),
                postprocessing=POSTPROCESSING,
                frames=Selection(t=(4, 7), z=(1, 3)),
                layout=LAYOUT,
                arrays=arrays_of(LAYOUT, "labels/nuclei", probability=("probability/nuclei", 0)),
                halo=48,
            )
        },
    ),
    JobReport(
        counts=Counts(frames=6, failed=1, objects=9, missing_chunks=0),
        settings=ReportedSettings(
            **SETTINGS.model_dump(),
            resolved=Resolved(threshold=0.5, workers=2, threads=1, device="cpu", runtime="x"),
        ),
        model=ReportedModel(
            path="/m.onnx", sha256="c" * 64, spec=networks.spec(networks.threshold_model())
        ),
        inputs=(
            ReportedInput(
                name="a", path="/data/a.tif", format="TIFF", series="", series_name="", unused=(),
                min_is_white=False, axes="TZYX", shape=(9, 4, 40, 50), dtype="uint16",
                channels=(0,), channel_names=(), pixel_size_um={}, time_step_s=None,
                measured_channels=(0,),
                labels_shape=LAYOUT.shape, tile=(40, 50), halo=48, postprocessing=POSTPROCESSING,
                pixels_sha256="e" * 64,
            ),
        ),
        refused=(),
        notes=("a.tif: its thumbnail is not read",),
        predicted=Predicted(memory_bytes=1, disk_bytes=2),
        machine=Machine(processor="x", cores=2, system="Linux"),
        versions={"python": "3.11"},
        started="2026-01-01T00:00:00Z",
        seconds=1.5,
        frames_in_this_run=6.0,
        frames_per_second=4.0,
        seconds_by_stage={"read": 0.1},
        attempts={"a segment 1": 2},
        files_sha256={"frames.csv": "f" * 64},
        records_sha256="0" * 64,
    ),
    Tuned(
        model="d" * 64,
        model_name="nuclei",
        processor="a processor",
        builds=("onnxruntime 1.24",),
        inputs=("stack.tif",),
        frames=2,
        objects=40,
        height=64,
        width=96,
        workers=1,
        threads=2,
        measured=(
            Measured(runtime="onnxruntime", device="cpu", precision="fp32", build="1", f1=1.0),
        ),
    ),
)  # fmt: skip
each = pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)


def kinds(of: type[Record] = Record) -> Iterator[type[Record]]:
    """Every type of record."""
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_every_type_has_an_example() -> None:
    assert {*kinds()} == {type(record) for record in EXAMPLES}


@each
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    data = encode(record)
    assert decode(type(record), data, "here") == record
    assert encode(record) == data and json.loads(data)["version"] == VERSION


@each
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"\xff" + data,
        lambda data: b"[" * 100_000,
        lambda data: b"5",
        lambda data: b"[]",
        lambda data: b'{"version": 1}' if b'"deaths"' not in data else b'{"version": 1, "x": 2}',
        lambda data: data.replace(b'"version"', b'"more": 1, "version"'),
    ],
)
def test_a_damaged_record_is_none(record: Record, damage: object) -> None:
    assert callable(damage)
    damaged = damage(encode(record))
    if isinstance(record, Failures) and damaged == b'{"version": 1}':
        return  # that is one without failures
    assert decode(type(record), damaged, "here") is None


@each
@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_a_record_of_another_version_is_refused(record: Record, version: object) -> None:
    content = json.loads(encode(record)) | {"version": version}
    data = json.dumps(content).encode()
    if version is None:  # as if it had none
        assert decode(type(record), data, "here") is None
        return
    with pytest.raises(
        RecordVersionError, match=r"^here: was written by another version of"
    ) as one:
        decode(type(record), data, "here")
    assert isinstance(one.value, OutputError) and "\n" not in str(one.value)


@each
def test_only_an_identity_without_a_version_is_an_old_one(record: Record) -> None:
    content = json.loads(encode(record))
    del content["version"]
    data = json.dumps(content).encode()
    if isinstance(record, JobIdentity):
        with pytest.raises(RecordVersionError, match="record version none"):
            decode(JobIdentity, data, "here")
    else:
        assert decode(type(record), data, "here") is None


def test_measures_keep_their_types() -> None:
    """Tables are written from them: 7 is another CSV than 7.0."""
    record = SurveyRecord(frame=FRAMES[0])
    found = decode(SurveyRecord, encode(record), "here")
    assert found is not None
    row = found.frame.row("a")
    assert list(map(repr, row.values())) == list(map(repr, FRAMES[0].row("a").values()))
    assert repr(row["area_mean_px"]) == "7.0" and repr(row["objects"]) == "3"
