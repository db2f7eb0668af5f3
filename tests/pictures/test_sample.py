"""`segment --sample`: the frames of a job, seen before it; and no job is begun."""

from __future__ import annotations

import threading
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.commands.segment import segment
from engine.errors import OutputError, UsageError
from engine.geometry import layout
from engine.geometry.spread import spread
from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.results.pictures.sample import sample
from engine.results.result import open_result
from engine.stacks.tiff.stack import TiffStack
from tests.conftest import make_threshold_model
from tests.engine import jobs


@pytest.fixture
def stacks(tmp_path: Path) -> list[Path]:
    return [
        jobs.write_stack(tmp_path / "a.tif", jobs.blobs((9, 64, 96))),
        jobs.write_stack(tmp_path / "b.tif", jobs.blobs((2, 3, 64, 96), 1), "TZYX"),
        jobs.write_stack(tmp_path / "c.tif", jobs.blobs((64, 96), 2), "YX"),
    ]


def test_a_sample_is_what_the_job_will_find(stacks, threshold_model, tmp_path):
    output = tmp_path / "out"
    settings = jobs.settings(stacks, threshold_model, output, workers=1, min_area=20)
    found, refused = sample(settings, 7)
    assert not refused and [one.name for one in found] == [
        "a_t0001", "a_t0004", "a_t0007", "b_t0000_z001", "b_t0001_z000", "b_t0001_z002", "c",
    ]  # fmt: skip
    names = {p.name for p in (output / "sample").iterdir()}
    assert names == {"sample.png", "sample.json", *(f"{one.name}.png" for one in found)}
    assert [p.name for p in output.iterdir()] == ["sample"], "no job has begun"
    again = (output / "sample/sample.png").read_bytes()
    assert sample(settings, 7)[0] == found
    assert (output / "sample/sample.png").read_bytes() == again

    assert run_job(settings, executor=SerialExecutor()).exit_status == 0
    read = {s.name: s.labels for s in open_result(output)}
    for one, (stack, t, z) in zip(
        found,
        [("a", 1, 0), ("a", 4, 0), ("a", 7, 0), ("b", 0, 1), ("b", 1, 0), ("b", 1, 2), ("c", 0, 0)],
        strict=True,
    ):
        labels = read[stack].read(t, z)
        areas = np.bincount(labels.ravel())[1:]
        assert one.objects == len(areas) and one.median_area_px == np.median(areas)
        assert one.foreground == pytest.approx((labels > 0).mean())
    found, _ = sample(settings, 2)
    names = {p.name for p in (output / "sample").iterdir()}
    assert names == {"sample.png", "sample.json", *(f"{one.name}.png" for one in found)}
    assert run_job(settings, executor=SerialExecutor()).already_complete, "nor does one go"


def test_a_region_of_a_frame_that_is_cut(tmp_path, threshold_model, monkeypatch):
    stack = jobs.write_stack(tmp_path / "s.tif", jobs.blobs((2, 120, 200)))
    monkeypatch.setattr(layout, "BLOCK_PIXELS", 64 * 64)
    monkeypatch.setattr(layout, "REGION", 64)
    settings = jobs.settings(stack, threshold_model, tmp_path / "out", workers=1)
    found, _ = sample(settings, 2)
    run_job(settings, executor=SerialExecutor())
    (result,) = open_result(tmp_path / "out")
    from engine.job.prepare import prepare_job

    (plan,) = prepare_job(settings).plan.stacks
    assert plan.layout.is_cut
    grid = plan.layout.grid
    block = plan.layout.block(plan.layout.number((0, 0, grid[2] // 2, grid[3] // 2)))
    labels = result.labels.read(0, 0)[block.y.as_slice(), block.x.as_slice()]
    assert found[0].foreground == pytest.approx((labels > 0).mean())


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 60))
def test_frames_are_spread(sizes, count):
    layouts = [
        layout.make_layout("TYX", (size, 8, 8), instances=True, first=(5, 0)) for size in sizes
    ]
    chosen = list(spread(layouts, count))
    assert len(chosen) == min(count, sum(sizes)) and len(set(chosen)) == len(chosen)
    assert chosen == sorted(chosen)
    shares = [sum(n == one for one, _ in chosen) for n in range(len(sizes))]
    if count < len(sizes):
        assert max(shares) == 1
    else:
        for share, size in zip(shares, sizes, strict=True):
            assert share == size or share >= max(shares) - 1
    assert all(5 <= t < 5 + sizes[n] for n, (t, _) in chosen)


def test_the_command_tells_what_it_found(stacks, tmp_path):
    model = make_threshold_model(tmp_path / "m.onnx")
    (tmp_path / "text.tif").write_text("none")
    arguments = [*map(str, stacks), str(tmp_path / "text.tif"), "--model", str(model)]
    arguments += ["--output", str(tmp_path / "out"), "--sample", "3"]
    done = CliRunner().invoke(segment, arguments, standalone_mode=False)
    assert done.return_value == 1, "an input was refused"
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["frame", "objects", "median", "area", "px", "foreground"]
    assert [line.split()[0] for line in lines[1:4]] == ["a_t0004", "b_t0001_z000", "c"]
    assert lines[-1] == str(tmp_path / "out/sample/sample.png")
    assert "text.tif" in done.stderr
    assert np.asarray(Image.open(lines[-1])).ndim == 3


def test_a_frame_that_cannot_be_segmented_is_told(tmp_path, threshold_model):
    data = jobs.blobs((3, 64, 96)).astype(np.float32)
    data[1] = np.nan
    stack = jobs.write_stack(tmp_path / "s.tif", data)
    settings = jobs.settings(stack, threshold_model, tmp_path / "out", workers=1)
    found, _ = sample(settings, 3)
    assert [bool(one.reason) for one in found] == [False, True, False]
    assert "are NaN or infinite" in found[1].reason
    assert {p.name for p in (tmp_path / "out/sample").iterdir()} == {
        "sample.png", "sample.json", "s_t0000.png", "s_t0002.png",
    }  # fmt: skip


def test_what_a_sample_does_not_do(stacks, threshold_model, tmp_path):
    output = tmp_path / "out"
    for option in ({"fresh": True}, {"array_task": "1/2"}, {"retry_failed": True}):
        with pytest.raises(UsageError, match=r"--sample: .*omit --"):
            sample(jobs.settings(stacks, threshold_model, output, **option), 2)
    assert not output.exists()


@pytest.mark.parametrize("name", ["notes.txt", "a_t0004.png", "sample.png", "sample.json"])
def test_a_folder_that_no_sample_made_stays(stacks, threshold_model, tmp_path, name):
    folder = tmp_path / "out/sample"
    folder.mkdir(parents=True)
    settings = jobs.settings(stacks, threshold_model, tmp_path / "out", workers=1)
    (folder / name).write_text("mine")
    with pytest.raises(OutputError, match="sample: holds files that no earlier --sample wrote"):
        sample(settings, 2)
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [(name, "mine")]
    (folder / name).unlink()
    sample(settings, 2)
    (folder / "mine.png").write_text("mine")
    with pytest.raises(OutputError, match="sample: holds files that no earlier"):
        sample(settings, 2)
    assert (folder / "mine.png").read_text() == "mine"


@pytest.mark.parametrize("inside", ["", "images", "images/deep.zarr"])
def test_a_sample_is_never_where_an_input_is(tmp_path, threshold_model, inside):
    """The folder of images is named `sample`, or lies in one that is."""
    stack = tmp_path / "sample" / inside
    data = jobs.blobs((2, 64, 96))
    if stack.suffix:
        zarr.create_array(stack, data=data, dimension_names=["t", "y", "x"])
    else:
        stack.mkdir(parents=True)
        for t, frame in enumerate(data):
            imagecodecs.imwrite(stack / f"{t}.png", frame)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(OutputError, match=r"sample: would be written over the input"):
        sample(jobs.settings(stack, threshold_model, tmp_path, workers=1), 2)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_sample_is_never_written_into_an_input(tmp_path, threshold_model):
    stack = tmp_path / "s.zarr"
    zarr.create_array(stack, data=jobs.blobs((2, 64, 96)), dimension_names=["t", "y", "x"])
    with pytest.raises(OutputError, match="would be written over the input"):
        sample(jobs.settings(stack, threshold_model, stack, workers=1), 2)
    assert not (stack / "sample").exists()


def test_a_frame_that_hangs_is_told_in_time(tmp_path, threshold_model, monkeypatch, caplog):
    """And what the plan has to say of the inputs is said too."""
    stack = tmp_path / "s.tif"
    tifffile.imwrite(stack, jobs.blobs((3, 64, 96)), photometric="miniswhite", metadata=None)
    read, gate = TiffStack._read, threading.Event()

    def hanging(self, t, *rest):
        if t == 1:
            gate.wait()
        return read(self, t, *rest)

    monkeypatch.setattr(TiffStack, "_read", hanging)
    job = jobs.settings(stack, threshold_model, tmp_path / "out", workers=1, timeout=1)
    found, _ = sample(job, 3)
    gate.set()
    assert [one.reason for one in found] == [
        "", "did not end within 1 s; see what it lies on, or give a longer --timeout", "",
    ]  # fmt: skip
    assert "0 is white in it" in caplog.text
