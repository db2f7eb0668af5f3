"""`verify` names what is lost or changed, and is content with what a job left."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import layout
from engine.arrays import ArrayShape, arrays_of
from engine.claim import lock
from engine.cli import stackseg
from engine.errors import JobStopped
from engine.job import run_job
from engine.layout import LabelLayout, layout_from
from engine.records import JobFolder
from engine.store import decode_shard, encode_shard
from engine.verify.run import verify_job
from tests import networks
from tests.conftest import make_threshold_model
from tests.engine import jobs
from tests.engine.jobs import Shuffled

REGIONS = {"BLOCK_PIXELS": 2000, "REGION": 32, "GRAIN": 8}
BLOCKS = {"BLOCK_PIXELS": 3 * 40 * 50}
KINDS = ("whole", "cut", "volume", "classes")


def class_model(path: Path) -> Path:
    network = networks.unet((4, 4), n_outputs=3, seed=16, positive=False)
    # With these biases at the end the three classes are about as frequent.
    bias = network.graph.initializer[-1]
    bias.CopyFrom(onnx.numpy_helper.from_array(np.float32([-0.069, -0.139, -0.088]), bias.name))
    spec = networks.spec(network, classes=("background", "left", "right"), name="threshold")
    return networks.save(path, network, spec)


def make_job(folder: Path, kind: str) -> Path:
    """A job's output; its inputs and its model are gone, and one frame was set aside."""
    shape = {"whole": (8, 40, 50), "cut": (3, 60, 70), "volume": (2, 5, 48, 50)}
    frames = jobs.blobs(shape.get(kind, (4, 60, 70)), seed=3).astype(np.float32)
    frames.reshape(-1, *frames.shape[-2:])[1, 20, 30] = np.nan
    axes = "TZYX" if kind == "volume" else "TYX"
    stack = jobs.write_stack(folder / "stack.tif", frames, axes=axes)
    make = class_model if kind == "classes" else make_threshold_model
    model = make(folder / "model.onnx")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (BLOCKS if kind == "whole" else REGIONS).items():
            patch.setattr(layout, name, value)
        changes = {"connect": "z"} if kind == "volume" else {}
        done = run_job(jobs.settings(stack, model, folder / "out", workers=1, **changes))
    assert done.frames_failed == 1
    assert (done.objects > 7) == (kind != "classes")
    stack.unlink()
    model.unlink()
    return folder / "out"


@pytest.fixture(scope="module", params=KINDS)
def job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_job(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_job(tmp_path_factory.mktemp("one"), "whole")


def damaged(job: Path, tmp_path: Path) -> Path:
    """A copy of a job, to be damaged."""
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    return shutil.copytree(job, copy)


def text_of(output: Path) -> str:
    """The problems, one line each; there are some."""
    verdict = verify_job(output)
    assert verdict.exit_status == 1
    lines = [one["text"] for one in verdict.problems.to_list()]
    assert lines and all("\n" not in line for line in lines)
    return "\n".join(lines)


def shards(output: Path) -> list[Path]:
    array = output / "stack.zarr/labels/threshold/0/c"
    return sorted(path for path in array.rglob("*") if path.is_file())


def name(output: Path, path: Path) -> str:
    return path.relative_to(output).as_posix()


def write_json(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


# -- as a job left it -------------------------------------------------------------------------


def test_what_a_job_left_is_as_recorded(job: Path) -> None:
    before = {path: path.read_bytes() for path in job.rglob("*") if path.is_file()}
    verdict = verify_job(job)
    assert list(verdict.problems.lines()) == []
    assert verdict.exit_status == 0 and verdict.missing == 0
    told = json.loads((job / "job.json").read_bytes())["counts"]
    assert (verdict.frames, verdict.failed) == (told["frames"], told["failed"])
    assert (verdict.objects or 0) == told["objects"]
    assert verdict.blocks == len(shards(job))
    assert {path: path.read_bytes() for path in job.rglob("*") if path.is_file()} == before


def test_several_stacks_frames_that_begin_late_and_one_without_objects(
    tmp_path: Path, threshold_model: Path
) -> None:
    inputs = []
    for folder, value in (("a", 0), ("b", 60000)):
        (tmp_path / folder).mkdir()
        data = jobs.blobs((6, 40, 50), seed=value)
        inputs.append(jobs.write_stack(tmp_path / folder / "s.tif", data))
    run_job(jobs.settings(inputs, threshold_model, tmp_path / "out", frames=(2, 5), min_area=10**6))
    verdict = verify_job(tmp_path / "out")
    assert list(verdict.problems.lines()) == []
    assert (verdict.frames, verdict.objects) == (6, 0)


# -- shards, records, parts -------------------------------------------------------------------


@settings(max_examples=12)
@given(data=st.data())
def test_any_byte_of_any_shard(job: Path, tmp_path: Path, data: st.DataObject) -> None:
    output = damaged(job, tmp_path)
    path = data.draw(st.sampled_from(shards(output)))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert name(output, path) in text_of(output)


@pytest.mark.parametrize("keep", [0, 3, 0.5, -1])
def test_a_shard_that_is_cut_short(job: Path, tmp_path: Path, keep: float) -> None:
    output = damaged(job, tmp_path)
    path = shards(output)[-1]
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep == 0.5 else int(keep)])
    assert f"{name(output, path)}: stack stack, block" in text_of(output)


def test_a_shard_that_is_gone(job: Path, tmp_path: Path) -> None:
    output = damaged(job, tmp_path)
    path = shards(output)[1]
    path.unlink()
    assert f"{name(output, path)}: stack stack, block 1" in text_of(output)
    assert "the labels are gone" in text_of(output)


def test_two_shards_that_are_swapped(job: Path, tmp_path: Path) -> None:
    output = damaged(job, tmp_path)
    a, b = shards(output)[0], shards(output)[-1]
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    text = text_of(output)
    assert name(output, a) in text and name(output, b) in text


@pytest.mark.parametrize("how", ["gone", "cut", "of another", "checksum", "swapped"])
def test_a_record(job: Path, tmp_path: Path, how: str) -> None:
    output = damaged(job, tmp_path)
    path = output / ".stackseg/records/stack/000001.json"
    named = path
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:40])
    elif how == "of another":
        write_json(path, lambda record: record.update(block=2))
    elif how == "swapped":
        shutil.copy(path.with_name("000000.json"), path)
    else:
        write_json(path, lambda record: record.update(labels_sha256="0" * 64))
        named = shards(output)[1]
    text = text_of(output)
    assert f"{name(output, named)}: stack stack, block 1" in text


@pytest.mark.parametrize("how", ["gone", "cut", "checksum", "count", "row lost", "row changed"])
def test_the_record_of_frames(job: Path, tmp_path: Path, how: str) -> None:
    output = damaged(job, tmp_path)
    kind = "canvases" if (output / ".stackseg/canvases").is_dir() else "records"
    path = output / f".stackseg/{kind}/stack/000000.json"
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif how == "checksum":
        write_json(path, lambda record: record.update(objects_sha256="0" * 64))
        path = output / ".stackseg/objects/stack/000000.parquet"
    elif how == "count":
        if kind == "records":
            pytest.skip("such records count by their rows")
        write_json(path, lambda record: record.update(objects=record["objects"] + 1))
    elif how == "row lost":
        write_json(path, lambda record: record["frames"].pop())
    else:
        write_json(path, lambda record: record["frames"][0].update(foreground_fraction=0.123))
        assert "stack stack, t=0" in text_of(output)
        assert "0.123" in text_of(output)
        return
    assert f"{name(output, path)}: stack stack" in text_of(output)


@pytest.mark.parametrize("how", ["gone", "byte", "empty"])
def test_the_objects_of_a_block(job: Path, tmp_path: Path, how: str) -> None:
    output = damaged(job, tmp_path)
    path = output / ".stackseg/objects/stack/000000.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(b"" if how == "empty" else content)
    text = text_of(output)
    assert f"{name(output, path)}: stack stack" in text
    assert "objects.parquet: stack stack, t=" not in text  # that table is not to blame


# -- a writer that is wrong -------------------------------------------------------------------


def shape_of(plan: LabelLayout) -> ArrayShape:
    return arrays_of(plan, "labels/threshold")[0].shape(plan)


@settings(max_examples=12)
@given(data=st.data())
def test_labels_that_are_wrong_though_their_checksum_is_right(
    job: Path, tmp_path: Path, data: st.DataObject
) -> None:
    output = damaged(job, tmp_path)
    identity = json.loads((output / ".stackseg/identity.json").read_bytes())
    plan = layout_from(identity["stacks"]["stack"]["layout"])
    block = plan.block(data.draw(st.integers(0, plan.n_blocks - 1)))
    path = output / "stack.zarr" / arrays_of(plan, "labels/threshold")[0].key(plan, block)
    labels = decode_shard(shape_of(plan), path.read_bytes())
    at = tuple(data.draw(st.integers(0, size - 1)) for size in labels.shape)
    known = int(labels[at])
    top = np.iinfo(labels.dtype).max
    wrong = data.draw(st.integers(0, 9) | st.integers(0, top))
    how = data.draw(st.sampled_from(["pixel", "shift", "zeros"]))
    before = labels.copy()
    if how == "pixel":
        labels[at] = wrong if wrong != known else known + 1
    elif how == "shift":
        labels = np.roll(labels, 1, axis=data.draw(st.sampled_from([-1, -2])))
    else:
        labels[at[:2]] = 0
    if np.array_equal(labels, before) or (
        # Which pixel has which class is on record in the checksum alone: here are the counts.
        plan.dtype == "uint8" and how == "shift"
    ):
        return
    encoded = encode_shard(shape_of(plan), labels)
    path.write_bytes(encoded)
    record = output / f".stackseg/records/stack/{block.index:06d}.json"
    write_json(record, lambda r: r.update(labels_sha256=hashlib.sha256(encoded).hexdigest()))
    text = text_of(output)
    assert "SHA-256" not in text
    assert f"stack stack, t={block.t[0]}" in text or any(
        f"t={t}" in text for t in range(*block.t)
    ) or name(output, path) in text  # fmt: skip


def test_ids_that_do_not_count_up(whole: Path, tmp_path: Path) -> None:
    output = damaged(whole, tmp_path)
    identity = json.loads((output / ".stackseg/identity.json").read_bytes())
    plan = layout_from(identity["stacks"]["stack"]["layout"])
    path = shards(output)[0]
    labels = decode_shard(shape_of(plan), path.read_bytes())
    one, two = labels[0] == 1, labels[0] == 2
    labels[0][one], labels[0][two] = 2, 1
    path.write_bytes(encode_shard(shape_of(plan), labels))
    text = text_of(output)
    assert f"{name(output, path)}: stack stack, t=0: its ids do not count up" in text
    labels[0][labels[0] == 2] = 2**32 - 1
    path.write_bytes(encode_shard(shape_of(plan), labels))
    assert f"{name(output, path)}: stack stack, t=0: " in text_of(output)


# -- tables -----------------------------------------------------------------------------------


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> dict[str, Any]:
    """Change the rows of a Parquet table; the row that the change returns."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    row: dict[str, Any] = change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    return row


def changed(rows: list[dict[str, Any]], at: int, column: str, value: Any) -> dict[str, Any]:
    rows[at][column] = value
    return rows[at]


@pytest.mark.parametrize(
    "column", ["area_px", "max_intensity_0", "solidity", "class", "bbox_x0", "touches_border"]
)
@pytest.mark.parametrize("at", [0, 7, -1])
def test_a_value_of_an_object(whole: Path, tmp_path: Path, at: int, column: str) -> None:
    output = damaged(whole, tmp_path)
    path = output / "objects.parquet"
    known = pq.read_table(path).to_pylist()[at][column]
    value: Any = "another" if isinstance(known, str) else known + 1
    value = not known if isinstance(known, bool) else value
    row = rewrite(path, lambda rows: changed(rows, at, column, value))
    assert (
        f"objects.parquet: stack stack, t={row['t']}: the row of object {row['label']} is not as "
        f"recorded: {column} is {value} instead of {known}"
    ) in text_of(output)


@pytest.mark.parametrize("at", [0, 7, -1])
def test_a_row_of_objects_that_is_lost_or_twice_there(job: Path, tmp_path: Path, at: int) -> None:
    if not pq.read_table(job / "objects.parquet").num_rows:
        pytest.skip("a class map has no objects")
    output = damaged(job, tmp_path)
    row = rewrite(output / "objects.parquet", lambda rows: rows.pop(at))
    where = f"objects.parquet: stack stack, t={row['t']}"
    lost = [line for line in text_of(output).splitlines() if line.startswith(where)]
    assert len(lost) == 1 and f"the row of object {row['label']} is not there" in lost[0]
    output = damaged(job, tmp_path)
    row = rewrite(output / "objects.parquet", lambda rows: rows.insert(at, rows[at]) or rows[at])
    assert f"the row of object {row['label']} is there, and nothing recorded" in text_of(output)


@pytest.mark.parametrize("at", [0, 2, -1])
def test_a_row_of_frames(job: Path, tmp_path: Path, at: int) -> None:
    output = damaged(job, tmp_path)
    row = rewrite(output / "frames.parquet", lambda rows: rows.pop(at))
    assert f"frames.parquet: stack stack, t={row['t']}" in text_of(output)
    assert "the row is not there" in text_of(output)
    output = damaged(job, tmp_path)
    row = rewrite(output / "frames.parquet", lambda r: changed(r, at, "mean_intensity_objects", 7))
    text = text_of(output)
    assert f"frames.parquet: stack stack, t={row['t']}" in text and "is 7.0 instead of" in text
    output = damaged(job, tmp_path)
    rewrite(output / "frames.parquet", lambda rows: changed(rows, at, "stack", "other"))
    text = text_of(output)
    assert "frames.parquet: the row of stack=other" in text and "the row is not there" in text


@pytest.mark.parametrize("at", [1, 3, -1])
def test_a_line_of_frames_csv(job: Path, tmp_path: Path, at: int) -> None:
    lines = (job / "frames.csv").read_text().splitlines(keepends=True)
    t = lines[at].split(",")[1]
    for line in ("", lines[at].replace("0.", "1."), lines[at].rstrip() + ",1\n", "x" + lines[at]):
        if line == lines[at]:
            continue  # a frame that was set aside has no figures
        output = damaged(job, tmp_path)
        rest = lines[:]
        rest[at] = line
        (output / "frames.csv").write_text("".join(rest))
        assert f"frames.csv: stack stack, t={t}" in text_of(output)


TABLES = ("frames.parquet", "frames.csv", "objects.parquet", "timings.parquet", "failures.json")


@pytest.mark.parametrize("table", [*TABLES, "job.json"])
@pytest.mark.parametrize("how", ["gone", "empty", "cut"])
def test_a_table_or_report_that_is_gone_or_cut_short(
    whole: Path, tmp_path: Path, table: str, how: str
) -> None:
    output = damaged(whole, tmp_path)
    content = (output / table).read_bytes()
    if how == "gone":
        (output / table).unlink()
    else:
        (output / table).write_bytes(b"" if how == "empty" else content[: len(content) // 2])
    lines = text_of(output).splitlines()
    assert lines and all(line.startswith(table) for line in lines)


@settings(max_examples=40)
@given(data=st.data(), table=st.sampled_from(TABLES))
def test_any_byte_of_any_table(
    whole: Path, tmp_path: Path, data: st.DataObject, table: str
) -> None:
    path = whole / table
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    kept = path.read_bytes()
    try:
        path.write_bytes(content)
        assert table in text_of(whole)
    finally:
        path.write_bytes(kept)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["frames"].clear(),
        lambda content: content["frames"][0].update(t=5),
        lambda content: content["frames"][0].update(reason="because"),
        lambda content: content["frames"].append(content["frames"][0]),
        lambda content: content["stacks"].append({"input": "x", "reason": "y"}),
        lambda content: content.update(frames=None),
    ],
)
def test_failures_that_are_others(job: Path, tmp_path: Path, change: Any) -> None:
    output = damaged(job, tmp_path)
    write_json(output / "failures.json", change)
    assert text_of(output).startswith("failures.json: ")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["counts"].update(frames=7),
        lambda content: content["counts"].update(failed=0),
        lambda content: content["counts"].update(objects=3),
        lambda content: content["inputs"][0].update(pixels_sha256="0" * 64),
        lambda content: content["inputs"][0].update(labels_shape=[1, 2, 3]),
        lambda content: content["inputs"].clear(),
        lambda content: content["settings"]["resolved"].update(threshold=0.25),
        lambda content: content["model"].update(sha256="0" * 64),
        lambda content: content.pop("counts"),
    ],
)
def test_a_report_that_is_another(job: Path, tmp_path: Path, change: Any) -> None:
    output = damaged(job, tmp_path)
    write_json(output / "job.json", change)
    assert "job.json: " in text_of(output)


# -- metadata and strays ----------------------------------------------------------------------

ARRAY = "stack.zarr/labels/threshold/0/zarr.json"
IMAGE = "stack.zarr/labels/threshold/zarr.json"
GROUPS = (IMAGE, "stack.zarr/labels/zarr.json", "stack.zarr/zarr.json")


@pytest.mark.parametrize("path", [ARRAY, *GROUPS])
@pytest.mark.parametrize("how", ["gone", "cut", "other"])
def test_metadata_that_are_lost(job: Path, tmp_path: Path, path: str, how: str) -> None:
    output = damaged(job, tmp_path)
    content = (output / path).read_bytes()
    (output / path).unlink()
    if how != "gone":
        (output / path).write_bytes(b"[1]" if how == "other" else content[:-20])
    assert text_of(output).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", [99, 40, 50]),
        ("fill_value", 1),
        ("data_type", "uint16"),
        ("dimension_names", ["z", "y", "x"]),
        ("codecs", []),
        ("attributes", {"a": 1}),
    ],
)
@pytest.mark.parametrize("unfinished", [False, True])
def test_array_metadata_that_are_changed(
    job: Path, tmp_path: Path, key: str, value: Any, unfinished: bool
) -> None:
    output = damaged(job, tmp_path)
    if unfinished:
        (output / "job.json").unlink()
    write_json(output / ARRAY, lambda content: content.update({key: value}))
    assert f"{ARRAY}: stack stack: the metadata are not as written: {key}" in text_of(output)


def ome(content: Any) -> Any:
    return content["attributes"]["ome"]


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (IMAGE, lambda c: ome(c)["multiscales"][0]["datasets"][0].update(path="1")),
        (IMAGE, lambda c: ome(c).pop("image-label")),
        (IMAGE, lambda c: ome(c)["multiscales"][0]["axes"].reverse()),
        ("stack.zarr/labels/zarr.json", lambda c: ome(c)["labels"].clear()),
        ("stack.zarr/zarr.json", lambda c: ome(c).pop("multiscales")),
        ("stack.zarr/zarr.json", lambda c: c.update(node_type="array")),
    ],
)
@pytest.mark.parametrize("unfinished", [False, True])
def test_group_metadata_that_are_changed(
    whole: Path, tmp_path: Path, path: str, change: Any, unfinished: bool
) -> None:
    output = damaged(whole, tmp_path)
    if unfinished:
        (output / "job.json").unlink()
    write_json(output / path, change)
    assert f"{path}: stack stack: the metadata " in text_of(output)


def test_metadata_of_which_a_scale_is_changed(job: Path, tmp_path: Path) -> None:
    output = damaged(job, tmp_path)
    path = output / "stack.zarr/zarr.json"
    path.write_text(path.read_text().replace("1.0", "1.5"))
    assert "multiscales.0.datasets.0.coordinateTransformations.0.scale" in text_of(output)


@pytest.mark.parametrize("key", ["c/99/0/0", "c/0/0", "c/00/0/0", "c/0/0/0.part", "x"])
def test_files_that_no_block_owns(whole: Path, tmp_path: Path, key: str) -> None:
    output = damaged(whole, tmp_path)
    path = output / "stack.zarr/labels/threshold/0" / key
    if path.is_dir():
        path /= "0x"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(shards(output)[0], path)
    assert text_of(output) == f"{name(output, path)}: stack stack: belongs to no block"


@pytest.mark.parametrize("kind", ["records/stack/000099.json", "objects/stack/000099.parquet"])
def test_records_of_no_block(job: Path, tmp_path: Path, kind: str) -> None:
    output = damaged(job, tmp_path)
    (output / ".stackseg" / kind).write_bytes(b"")
    assert text_of(output) == f".stackseg/{kind}: stack stack: belongs to no block"


def test_an_identity_that_is_damaged(whole: Path, tmp_path: Path) -> None:
    output = damaged(whole, tmp_path)
    path = output / ".stackseg/identity.json"
    content = path.read_text()
    pairs = [('"layout"', '"lay"'), ("0.5", "0.6"), ("uint32", "uint64"), ('"shape"', '"form"')]
    for text in (*(content.replace(*pair) for pair in pairs), content[:50]):
        assert text != content
        path.write_text(text)
        assert text_of(output)
    assert ".stackseg/identity.json" in text_of(output)


# -- the command ------------------------------------------------------------------------------


def command(*arguments: str) -> Any:
    return CliRunner().invoke(stackseg, ["verify", *arguments], standalone_mode=False)


def test_the_command_counts_what_is_fine(whole: Path) -> None:
    done = command(str(whole))
    objects = pq.read_table(whole / "objects.parquet").num_rows
    line = f"3 blocks, 8 frames (1 set aside), {objects:,} objects: all as recorded\n"
    assert (done.stdout, done.stderr, done.return_value) == (line, "", 0)
    done = command(str(whole), "--json")
    assert (json.loads(done.stdout), done.return_value) == ([], 0)


def test_the_command_names_what_is_not(whole: Path, tmp_path: Path) -> None:
    output = damaged(whole, tmp_path)
    path = shards(output)[1]
    path.unlink()
    done = command(str(output))
    assert done.return_value == 1
    assert (
        done.stdout == f"{name(output, path)}: stack stack, block 1, t=3..5: the labels are gone\n"
    )
    assert "1 problem, where 3 blocks" in done.stderr
    (problem,) = json.loads(command(str(output), "--json").stdout)
    assert problem["path"] == name(output, path)
    assert (problem["kind"], problem["stack"], problem["index"]) == ("shard", "stack", 1)


def test_many_problems_are_capped(whole: Path, tmp_path: Path) -> None:
    output = damaged(whole, tmp_path)
    rewrite(output / "objects.parquet", lambda rows: rows.clear())
    count = pq.read_table(whole / "objects.parquet").num_rows
    done = command(str(output))
    assert f"and {count - 20:,} more of the kind 'table'" in done.stdout
    assert len(done.stdout.splitlines()) == 21
    assert len(json.loads(command(str(output), "--json").stdout)) == min(count, 1001)


def test_leftovers_are_named_as_harmless(whole: Path, tmp_path: Path) -> None:
    output = damaged(whole, tmp_path)
    for folder in ("staging", "work/parts"):
        (output / ".stackseg" / folder).mkdir(parents=True, exist_ok=True)
        (output / ".stackseg" / folder / "x").write_bytes(b"x")
    done = command(str(output))
    assert done.return_value == 0 and "all as recorded" in done.stdout
    assert ".stackseg/staging: 1 " in done.stderr and ".stackseg/work: 1 " in done.stderr


def test_no_job_and_a_job_that_runs(whole: Path, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        done = command(str(path))
        assert "holds no job" in str(done.exception) and done.exception.exit_status == 2
    with lock(JobFolder(whole)):
        done = command(str(whole))
    assert "another job is writing here" in str(done.exception)


@pytest.mark.parametrize("kind", ["whole", "volume"])
def test_an_unfinished_job(tmp_path: Path, threshold_model: Path, kind: str) -> None:
    axes, constants = ("TYX", BLOCKS) if kind == "whole" else ("ZYX", REGIONS)
    stack = jobs.write_stack(tmp_path / "s.tif", jobs.blobs((8, 40, 52)), axes=axes)
    output = tmp_path / "out"
    changes = {"connect": "z"} if kind == "volume" else {}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in constants.items():
            patch.setattr(layout, key, value)
        with pytest.raises(JobStopped):
            run_job(
                jobs.settings(stack, threshold_model, output, **changes), executor=Shuffled(1, 2)
            )
    text = text_of(output)
    assert len(text.splitlines()) == 1 and "blocks are not done" in text
    made = sorted((output / ".stackseg/work/labels").rglob("*.shard")) or [
        path for path in (output / "s.zarr").rglob("c/*/*/*") if path.is_file()
    ]
    if made:
        content = bytearray(made[0].read_bytes())
        content[5] ^= 1
        made[0].write_bytes(content)
        assert name(output, made[0]) in text_of(output)


def test_a_job_that_lacks_only_its_tables(whole: Path, tmp_path: Path) -> None:
    output = damaged(whole, tmp_path)
    for table in (*TABLES, "job.json"):
        (output / table).unlink()
    assert "all blocks are done, and the tables are not written" in text_of(output)
