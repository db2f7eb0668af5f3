"""`verify` is content with what a job left; it names lost or changed shards, records, parts."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.geometry.arrays import ArrayShape, arrays_of
from engine.geometry.layout import LabelLayout
from engine.job.job import run_job
from engine.results.verify.run import verify_job
from engine.store.folder import JobFolder
from engine.store.ome_zarr import decode_shard, encode_shard
from tests.engine import jobs
from tests.engine.verify.damage import damaged, name, reseal, shards, text_of, write_json

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
        write_json(path, lambda record: record["shards"].update(labels="0" * 64))
        named = shards(output)[1]
    text = text_of(output)
    assert f"{name(output, named)}: stack stack, block 1" in text


@pytest.mark.parametrize("how", ["gone", "cut", "checksum", "count", "row lost", "row changed"])
def test_the_record_of_frames(job: Path, tmp_path: Path, how: str) -> None:
    output = damaged(job, tmp_path)
    kind = "stitched" if (output / ".stackseg/stitched").is_dir() else "records"
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
        change = {"foreground_fraction": 0.123}
        write_json(path, lambda record: record["frames"][0]["measures"].update(change))
        assert "stack stack, t=0" in text_of(output)
        assert "foreground_fraction is 0.123, and" in text_of(output)
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


def layout_of(output: Path) -> LabelLayout:
    identity = JobFolder(output).identity()
    assert identity is not None
    return identity.stacks["stack"].layout


def commit(output: Path, plan: LabelLayout, index: int, labels: NDArray[Any]) -> None:
    """Put a block's labels as a job that was wrong about them would have: all checksums fit."""
    encoded = encode_shard(shape_of(plan), labels)
    key = arrays_of(plan, "labels/threshold")[0].key(plan, plan.block(index))
    (output / "stack.zarr" / key).write_bytes(encoded)
    record = output / f".stackseg/records/stack/{index:06d}.json"
    digest = hashlib.sha256(encoded).hexdigest()
    write_json(record, lambda one: one["shards"].update(labels=digest))
    reseal(output)


@settings(max_examples=12)
@given(data=st.data())
def test_labels_that_are_wrong_though_their_checksum_is_right(
    job: Path, tmp_path: Path, data: st.DataObject
) -> None:
    output = damaged(job, tmp_path)
    plan = layout_of(output)
    block = plan.block(data.draw(st.integers(0, plan.n_blocks - 1)))
    path = output / "stack.zarr" / arrays_of(plan, "labels/threshold")[0].key(plan, block)
    labels = decode_shard(shape_of(plan), path.read_bytes())
    at = tuple(data.draw(st.integers(0, size - 1)) for size in labels.shape)
    known = int(labels[at])
    top = np.iinfo(labels.dtype).max
    wrong = data.draw(st.integers(0, 9) | st.integers(0, top))
    how = data.draw(st.sampled_from(["pixel", "frames", "zeros"]))
    before = labels.copy()
    if how == "pixel":
        labels[at] = wrong if wrong != known else known + 1
    elif how == "frames":
        labels = labels[::-1, ::-1]
    else:
        labels[at[:2]] = 0
    if np.array_equal(labels, before):
        return
    commit(output, plan, block.index, labels)
    text = text_of(output)
    assert "SHA-256" not in text
    assert f"stack stack, t={block.t[0]}" in text or any(
        f"t={t}" in text for t in range(*block.t)
    ) or name(output, path) in text  # fmt: skip


@pytest.mark.parametrize("other", [3, 2**32 - 1])
def test_an_id_that_no_object_has(whole: Path, tmp_path: Path, other: int) -> None:
    output = damaged(whole, tmp_path)
    plan = layout_of(output)
    path = shards(output)[0]
    labels = decode_shard(shape_of(plan), path.read_bytes())
    labels[0][labels[0] == 2] = other
    commit(output, plan, 0, labels)
    assert f"{name(output, path)}: stack stack, t=0: labels 2 are on record" in text_of(output)


def test_a_chunk_that_a_shard_lacks(whole: Path, tmp_path: Path) -> None:
    output = damaged(whole, tmp_path)
    path = shards(output)[0]
    content = bytearray(path.read_bytes())
    count = 3  # chunks, a frame each, with 16 bytes in the index before its own checksum
    content[-4 - 16 * count : -4 - 16 * (count - 1)] = b"\xff" * 16
    content[-4:] = struct.pack("<I", google_crc32c.value(bytes(content[-4 - 16 * count : -4])))
    path.write_bytes(content)
    record = output / ".stackseg/records/stack/000000.json"
    digest = hashlib.sha256(content).hexdigest()
    write_json(record, lambda one: one["shards"].update(labels=digest))
    assert f"{name(output, path)}: stack stack, block 0" in text_of(output)
    assert "1 chunks of the labels are not there" in text_of(output)


# -- records that are right by all that they are compared with --------------------------------


@pytest.mark.parametrize(
    ("field", "where"), [("mean_probability_objects", "t=0"), ("sha256", ""), ("reason", "")]
)
def test_any_record_that_has_changed(job: Path, tmp_path: Path, field: str, where: str) -> None:
    """One is named where a table shows which it is."""
    output = damaged(job, tmp_path)
    kind = "stitched" if (output / ".stackseg/stitched").is_dir() else "records"
    path = output / f".stackseg/{kind}/stack/000000.json"

    def change(record: Any) -> None:
        frame = record["frames"][0]
        (frame["measures"] if field in frame["measures"] else frame)[field] = 0.5 if where else "x"

    write_json(path, change)
    (line,) = text_of(output).splitlines()
    if where:
        assert line.startswith(f"{name(output, path)}: stack stack, {where}") and field in line
    else:
        assert line.startswith(".stackseg/records: a record has changed since the end of the job")


def test_a_space_in_a_record(whole: Path, tmp_path: Path) -> None:
    output = damaged(whole, tmp_path)
    path = output / ".stackseg/records/stack/000002.json"
    path.write_bytes(path.read_bytes().replace(b": ", b":", 1))
    assert "a record has changed since the end of the job" in text_of(output)
    (output / "job.json").unlink()
    (line,) = text_of(output).splitlines()  # nothing has a checksum of it yet
    assert "all blocks are done" in line
