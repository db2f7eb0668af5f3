"""Frames of which every chunk is missing are set aside by name, or are background if one says so.

The model of these tests takes fixed pixel values, so that it finds nothing in a blank frame; one
that takes percentiles refuses blank frames itself.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import zarr
from click.testing import CliRunner
from onnx import helper

from engine.cli import stackseg
from engine.errors import JobStopped, OutputError, StackError
from engine.geometry import layout
from engine.job.executors import SerialExecutor
from engine.job.job import merge_job, run_job
from engine.model.spec import Normalisation
from engine.store.folder import JobFolder
from tests import networks
from tests.engine import jobs

RANGE = Normalisation(policy="range", low=0, high=65535)
WHOLE: dict[str, int] = {}
CUT = {"BLOCK_PIXELS": 2000, "REGION": 32, "GRAIN": 8}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network = networks.threshold_model()
    return networks.save(
        tmp_path / "range.onnx",
        network,
        networks.spec(network, name="threshold", normalisation=RANGE),
    )


@pytest.fixture
def two_channels(tmp_path: Path) -> Path:
    """Foreground is where channel 0 is bright; channel 1 is seen, and changes nothing."""
    network = networks.threshold_model()
    graph = network.graph
    for tensor in graph.input:
        tensor.type.tensor_type.shape.dim[1].dim_value = 2
    (first,) = (n for n in graph.node if list(n.output) == ["probabilities"])
    first.output[0] = "both"
    index = helper.make_tensor("channel0", onnx.TensorProto.INT64, [1], [0])
    graph.initializer.append(index)
    graph.node.append(helper.make_node("Gather", ["both", "channel0"], ["probabilities"], axis=1))
    spec = networks.spec(None, name="threshold", n_channels=2, normalisation=RANGE)
    return networks.save(tmp_path / "two.onnx", network, spec)


def write(path: Path, data: np.ndarray, **options: Any) -> Path:
    """A Zarr with four chunks in each plane."""
    chunks = (*[1] * (data.ndim - 2), data.shape[-2] // 2, data.shape[-1] // 2)
    zarr.create_array(path, data=data, **{"chunks": chunks, **options})
    return path


def rows_of(output: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((output / "frames.csv").open()))


def failures_of(output: Path) -> dict[tuple[int, int], str]:
    told = json.loads((output / "failures.json").read_text())["frames"]
    return {(one["t"], one["z"]): one["reason"] for one in told}


def apply(monkeypatch: pytest.MonkeyPatch, constants: dict[str, int]) -> None:
    for name, value in constants.items():
        monkeypatch.setattr(layout, name, value)


@pytest.mark.parametrize("shards", [False, True], ids=["chunks", "shards"])
@pytest.mark.parametrize("axes, connect", [("TYX", "none"), ("ZYX", "none"), ("ZYX", "z")])
@pytest.mark.parametrize("constants", [WHOLE, CUT], ids=["whole", "cut"])
def test_a_frame_without_chunks_is_set_aside(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, constants: dict[str, int],
    axes: str, connect: str, shards: bool,
) -> None:  # fmt: skip
    apply(monkeypatch, constants)
    options = {"shards": (1, 64, 80)} if shards else {}
    store = write(tmp_path / "a.zarr", jobs.blobs((3, 64, 80)), **options)
    shutil.rmtree(store / "c/1")
    job = jobs.settings(store, model, tmp_path / "out", axes=axes, connect=connect)
    summary = run_job(job)
    assert (summary.exit_status, summary.frames_failed) == (1, 1)
    frame = (1, 0) if axes[0] == "T" else (0, 1)
    (failed,) = failures_of(job.output).items()
    assert failed[0] == frame
    named = "t=1" if axes[0] == "T" else "z=1"
    assert str(store) in failed[1] and named in failed[1] and "\n" not in failed[1]
    assert "none of its 4 chunks is there" in failed[1]
    assert "--missing-chunks background" in failed[1]
    rows = rows_of(job.output)
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert [row["missing_chunks"] for row in rows] == ["0", "", "0"]
    assert not jobs.labels_of(job.output, "a")[1].any()


@pytest.mark.parametrize("constants", [WHOLE, CUT], ids=["whole", "cut"])
def test_a_frame_that_lacks_some_is_counted(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, constants: dict[str, int]
) -> None:
    """Where frames are cut, regions without any chunk are parts of a frame that has some."""
    apply(monkeypatch, constants)
    store = write(tmp_path / "a.zarr", jobs.blobs((2, 64, 80)))
    for chunk in ("1/0/0", "1/0/1", "1/1/0"):
        (store / "c" / chunk).unlink()
    job = jobs.settings(store, model, tmp_path / "out", axes="TYX")
    summary = run_job(job)
    assert (summary.exit_status, summary.missing_chunks) == (0, 3)
    assert [row["missing_chunks"] for row in rows_of(job.output)] == ["0", "3"]


@pytest.mark.parametrize("constants", [WHOLE, CUT], ids=["whole", "cut"])
@pytest.mark.parametrize("connect", ["none", "z"])
def test_missing_chunks_as_background(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, constants: dict[str, int],
    connect: str,
) -> None:  # fmt: skip
    """A blank frame that zarr did not write: labels are those of a frame full of zeros."""
    apply(monkeypatch, constants)
    data = jobs.blobs((3, 64, 80))
    data[1] = 0
    sparse = write(tmp_path / "sparse/a.zarr", data)
    assert not (sparse / "c/1").exists()
    full = write(tmp_path / "full/a.zarr", data, config={"write_empty_chunks": True})
    common = {"axes": "ZYX", "connect": connect}
    job = jobs.settings(sparse, model, tmp_path / "out", missing_chunks="background", **common)
    summary = run_job(job)
    assert (summary.exit_status, summary.missing_chunks) == (0, 4)
    run_job(jobs.settings(full, model, tmp_path / "whole", **common))
    ours, theirs = jobs.labels_of(job.output, "a"), jobs.labels_of(tmp_path / "whole", "a")
    assert theirs.any()
    np.testing.assert_array_equal(ours, theirs)
    report = json.loads((job.output / "job.json").read_text())
    assert report["settings"]["missing_chunks"] == "background"


def test_what_missing_chunks_are_is_part_of_the_job(tmp_path: Path, model: Path) -> None:
    store = write(tmp_path / "a.zarr", jobs.blobs((3, 64, 80)))
    failing = jobs.settings(store, model, tmp_path / "out", axes="TYX")
    run_job(failing)
    known = JobFolder(failing.output).identity()
    assert known is not None and known.missing_chunks == "fail"
    blank = jobs.settings(store, model, tmp_path / "out", axes="TYX", missing_chunks="background")
    with pytest.raises(OutputError, match=r"missing-chunks was fail.*; give --retry-failed to re"):
        run_job(blank)


@pytest.mark.parametrize("constants", [WHOLE, CUT], ids=["whole", "cut"])
def test_frames_set_aside_can_be_taken_for_background_later(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, constants: dict[str, int]
) -> None:
    apply(monkeypatch, constants)
    store = write(tmp_path / "a.zarr", jobs.blobs((3, 64, 80)))
    shutil.rmtree(store / "c/1")
    common = {"axes": "TYX"}
    output = tmp_path / "out"
    assert run_job(jobs.settings(store, model, output, **common)).frames_failed == 1
    common["missing_chunks"] = "background"
    again = run_job(jobs.settings(store, model, output, retry_failed=True, **common))
    assert (again.exit_status, again.frames_failed, again.missing_chunks) == (0, 0, 4)
    clean = jobs.settings(store, model, tmp_path / "clean", **common)
    run_job(clean)
    assert jobs.contents(output) == jobs.contents(clean.output)
    assert run_job(clean.model_copy(update={"output": output})).already_complete
    assert merge_job(JobFolder(output)).already_complete
    with pytest.raises(OutputError, match="missing-chunks"):
        run_job(jobs.settings(store, model, output, axes="TYX", retry_failed=True))


@pytest.mark.parametrize("constants", [WHOLE, CUT], ids=["whole", "cut"])
def test_the_channels_that_the_model_sees_decide(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, constants: dict[str, int]
) -> None:
    apply(monkeypatch, constants)
    store = write(tmp_path / "a.zarr", jobs.blobs((3, 2, 64, 80)))
    shutil.rmtree(store / "c/1/0")  # of channel 0
    for channel, failed in (("0", 1), ("1", 0)):
        output = tmp_path / f"out{channel}"
        job = jobs.settings(store, model, output, axes="TCYX", channel=channel)
        assert run_job(job).frames_failed == failed
    assert [row["missing_chunks"] for row in rows_of(tmp_path / "out1")] == ["0", "4", "0"]


def test_one_of_the_models_channels_is_enough(tmp_path: Path, two_channels: Path) -> None:
    store = write(tmp_path / "a.zarr", jobs.blobs((3, 2, 64, 80)))
    shutil.rmtree(store / "c/1/1")
    shutil.rmtree(store / "c/2")
    job = jobs.settings(store, two_channels, tmp_path / "out", axes="TCYX")
    assert run_job(job).frames_failed == 1
    assert failures_of(job.output).keys() == {(2, 0)}
    assert "none of its 8 chunks" in failures_of(job.output)[2, 0]
    assert rows_of(job.output)[1]["missing_chunks"] == "4"


@pytest.mark.parametrize("group", [False, True], ids=["array", "group"])
@pytest.mark.parametrize("version", [2, 3])
def test_a_stack_without_chunks_is_refused(
    tmp_path: Path, model: Path, version: int, group: bool
) -> None:
    store = tmp_path / "a.zarr"
    if group:
        zarr.open_group(str(store), mode="w", zarr_format=version)  # type: ignore[arg-type]
    where = store / "0" if group else store
    zarr.create_array(where, shape=(3, 64, 80), chunks=(1, 32, 40), dtype="u2", zarr_format=version)  # type: ignore[arg-type]
    job = jobs.settings(store, model, tmp_path / "out", axes="TYX")
    with pytest.raises(StackError, match="none of its chunks is there") as caught:
        run_job(job)
    assert "\n" not in str(caught.value)
    assert not job.output.exists()
    blank = job.model_copy(update={"missing_chunks": "background"})
    assert (run_job(blank).exit_status, run_job(blank).objects) == (0, 0)


@pytest.mark.parametrize("constants", [{"BLOCK_PIXELS": 64 * 80}, CUT], ids=["whole", "cut"])
def test_a_store_that_goes_meanwhile_stops_the_job(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, constants: dict[str, int]
) -> None:
    """Its frames are not lost: once it is back, the same command ends as if nothing had been."""
    apply(monkeypatch, constants)
    store = write(tmp_path / "a.zarr", jobs.blobs((3, 64, 80)))
    job = jobs.settings(store, model, tmp_path / "out", axes="TYX")

    class Goes(SerialExecutor):
        def run(self, tasks: Any) -> Any:
            for n, task in enumerate(tasks):
                if n == 1 and store.exists():
                    store.rename(tmp_path / "away")
                yield from super().run(iter([task]))

    with pytest.raises(JobStopped, match="same command again"):
        run_job(job, executor=Goes())
    (tmp_path / "away").rename(store)
    assert run_job(job).exit_status == 0
    clean = jobs.settings(store, model, tmp_path / "clean", axes="TYX")
    run_job(clean)
    assert jobs.contents(job.output) == jobs.contents(clean.output)


@pytest.mark.parametrize("constants", [WHOLE, CUT], ids=["whole", "cut"])
def test_a_sample_says_so_too(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, constants: dict[str, int]
) -> None:
    apply(monkeypatch, constants)
    store = write(tmp_path / "a.zarr", jobs.blobs((2, 64, 80)))
    shutil.rmtree(store / "c/0")
    command = ["segment", str(store), "--model", str(model), "--axes", "TYX", "--quiet"]
    command += ["--output", str(tmp_path / "out"), "--sample", "2"]
    found = CliRunner().invoke(stackseg, command, standalone_mode=False)
    assert found.return_value == 1
    assert "none of its 4 chunks is there" in found.stderr


def test_the_option_on_the_command_line(tmp_path: Path, model: Path) -> None:
    store = write(tmp_path / "a.zarr", jobs.blobs((2, 64, 80)))
    shutil.rmtree(store / "c/0")
    command = ["segment", str(store), "--model", str(model), "--axes", "TYX", "--quiet"]
    for given, status in (("fail", 1), ("background", 0)):
        output = ["--output", str(tmp_path / given), "--missing-chunks", given]
        done = CliRunner().invoke(stackseg, [*command, *output], standalone_mode=False)
        assert done.return_value == status
    wrong = CliRunner().invoke(stackseg, [*command, "--output", "o", "--missing-chunks", "x"])
    assert wrong.exit_code == 2
