"""Jobs from input to output: same bytes for any workers, selecting, refusing, failing."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import dask
import numpy as np
import onnx
import psutil
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr

from engine.errors import ModelError, StackError, UsageError
from engine.geometry import layout
from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.job.prepare import prepare_job
from engine.job.progress import Progress
from engine.labels.components import label_frame
from engine.model.spec import Normalisation
from engine.runtimes.base import Target
from engine.runtimes.onnxruntime import OnnxRuntime
from engine.steps import worker
from engine.steps.task import Outcome
from tests import networks
from tests.conftest import make_threshold_model
from tests.engine import jobs
from tests.engine.jobs import labels_of


def test_labels_are_components_of_the_thresholded_probability(
    tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    summary = run_job(jobs.settings(stack, threshold_model, tmp_path / "out"))
    assert (summary.exit_status, summary.frames_done, summary.frames_failed) == (0, 14, 0)
    found = labels_of(tmp_path / "out", "stack")
    for t, frame in enumerate(tifffile.imread(stack)):
        low, high = np.percentile(frame, (1, 99.8), method="inverted_cdf")
        expected, _ = label_frame((frame - np.float32(low)) / np.float32(high - low) >= 0.5)
        assert np.array_equal(found[t], expected)
    assert summary.objects == sum(int(f.max()) for f in found)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_dask_gives_the_bytes_of_the_serial_loop(
    tmp_path: Path, stack: Path, threshold_model: Path, small_blocks: None, workers: int
) -> None:
    serial, dask = tmp_path / "serial", tmp_path / "dask"
    run_job(jobs.settings(stack, threshold_model, serial), executor=SerialExecutor())
    run_job(jobs.settings(stack, threshold_model, dask, workers=workers))
    assert len(list((serial / "stack.zarr/labels/threshold/0/c").iterdir())) == 5
    assert jobs.contents(dask) == jobs.contents(serial)


def damaged(tmp_path: Path) -> Path:
    """A folder of 12 frames, four of them damaged in four ways."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for t, frame in enumerate(jobs.blobs((12, 64, 96)).astype(np.float32)):
        if t == 3:
            frame[5, 5] = np.nan
        if t == 5:
            frame[6:, 7:] = np.inf
        tifffile.imwrite(folder / f"t{t}.tif", frame[:40] if t == 7 else frame)
    whole = (folder / "t10.tif").read_bytes()
    (folder / "t10.tif").write_bytes(whole[: len(whole) // 2])
    return folder


def test_a_bad_frame_costs_a_frame(
    tmp_path: Path, threshold_model: Path, small_blocks: None
) -> None:
    folder, output = damaged(tmp_path), tmp_path / "out"
    job = jobs.settings(folder, threshold_model, output)
    summary = run_job(job)
    assert (summary.exit_status, summary.frames_done, summary.frames_failed) == (1, 12, 4)
    failures = json.loads((output / "failures.json").read_bytes())["frames"]
    assert [f["t"] for f in failures] == [3, 5, 7, 10]
    assert failures[0]["reason"].startswith("1 of 6144 pixels are NaN or infinite")
    assert failures[1]["reason"].startswith("5162 of 6144 pixels")
    found = labels_of(output, "frames")
    table = pq.read_table(output / "frames.parquet").to_pylist()
    for t, frame in enumerate(found):
        bad = t in (3, 5, 7, 10)
        assert table[t]["status"] == ("failed" if bad else "ok")
        assert (table[t]["objects"] is None) == bad
        assert frame.any() != bad
    again = run_job(job)
    assert again.already_complete and again.exit_status == 1


def test_inputs_that_cannot_be_opened_are_named_and_the_rest_runs(
    tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    text = tmp_path / "text.tif"
    text.write_text("not a picture")
    missing = tmp_path / "missing.tif"
    job = jobs.settings([text, stack, missing], threshold_model, tmp_path / "out")
    summary = run_job(job)
    assert summary.exit_status == 1 and summary.frames_done == 14
    assert [str(text) in summary.refused[0], str(missing) in summary.refused[1]] == [True, True]
    failures = json.loads((tmp_path / "out/failures.json").read_bytes())["stacks"]
    assert [f["input"] for f in failures] == [str(text), str(missing)]


def test_nothing_is_written_where_nothing_can_be_opened(
    tmp_path: Path, threshold_model: Path
) -> None:
    output = tmp_path / "out"
    for inputs in ["missing.tif", ["missing.tif", "gone.tif"]]:
        with pytest.raises(StackError):
            run_job(jobs.settings(inputs, threshold_model, output))
    assert not output.exists()


def test_a_model_that_the_runtime_refuses_writes_nothing(tmp_path: Path, stack: Path) -> None:
    model = networks.unet((2, 2))
    spec = networks.spec(model)
    model.graph.node[3].op_type = "NoSuchOperator"
    path = networks.save(tmp_path / "broken.onnx", model, spec)
    with pytest.raises(ModelError, match="ONNX Runtime refuses it"):
        run_job(jobs.settings(stack, path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_axes_and_frames_select(tmp_path: Path, threshold_model: Path) -> None:
    data = jobs.blobs((4, 3, 2, 40, 50))  # T Z C Y X
    path = jobs.write_stack(tmp_path / "five.ome.tif", data, axes="TZCYX")
    output = tmp_path / "out"
    run_job(jobs.settings(path, threshold_model, output, channel="1", frames=(1, 3)))
    found = labels_of(output, "five")
    assert found.shape == (2, 3, 40, 50)
    rows = list(csv.DictReader((output / "frames.csv").open()))
    assert [(r["t"], r["z"]) for r in rows] == [(str(t), str(z)) for t in (1, 2) for z in range(3)]
    whole = tmp_path / "whole"
    run_job(jobs.settings(path, threshold_model, whole, channel="1"))
    assert np.array_equal(labels_of(whole, "five")[1:3], found)
    root = zarr.open_group(output / "five.zarr", mode="r").attrs["ome"]
    transforms = root["multiscales"][0]["datasets"][0]["coordinateTransformations"]  # type: ignore
    assert transforms[1] == {"type": "translation", "translation": [1.0, 0.0, 0.0, 0.0]}


@pytest.mark.parametrize(
    ("channel", "sentence"),
    [
        (None, r"has 2 channels, numbers 0 to 1 \(its metadata name none\), and the model takes 1"),
        ("2", "has no channel '2'; it has 2 channels"),
        ("0,1", "names 2, and the model takes 1"),
        ("GFP", "has no channel 'GFP'"),
    ],
)
def test_channels_are_chosen_or_refused(
    tmp_path: Path, threshold_model: Path, channel: str | None, sentence: str
) -> None:
    path = jobs.write_stack(tmp_path / "two.ome.tif", jobs.blobs((3, 2, 40, 50)), axes="TCYX")
    with pytest.raises(StackError, match=sentence):
        run_job(jobs.settings(path, threshold_model, tmp_path / "out", channel=channel))


def test_stacks_of_one_name_get_their_shortest_distinct_paths(
    tmp_path: Path, threshold_model: Path
) -> None:
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(jobs.write_stack(tmp_path / folder / "01.tif", jobs.blobs((2, 40, 50))))
    output = tmp_path / "out"
    run_job(jobs.settings(paths, threshold_model, output))
    assert labels_of(output, "a/01").shape == labels_of(output, "b/01").shape == (2, 40, 50)
    assert set(pq.read_table(output / "objects.parquet")["stack"].to_pylist()) == {"a/01", "b/01"}


def test_tiles_give_the_labels_of_whole_frames(tmp_path: Path, make_model: Any) -> None:
    network = networks.unet((4, 6, 8), seed=3, positive=False)
    model = make_model(network, networks.spec(network, threshold=0.5))
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((3, 150, 170)))
    whole, tiled = tmp_path / "whole", tmp_path / "tiled"
    run_job(jobs.settings(stack, model, whole))
    run_job(jobs.settings(stack, model, tiled, tile=64))
    assert jobs.contents(tiled) == jobs.contents(whole)
    assert (
        prepare_job(jobs.settings(stack, model, tiled, tile=64)).plan.stacks[0].tiling.n_tiles > 1
    )


def test_a_network_that_cannot_be_tiled_runs_whole_or_not_at_all(
    tmp_path: Path, stack: Path, make_model: Any
) -> None:
    network = networks.unet((2, 2), instance_norm=True)
    model = make_model(network, networks.spec(network))
    assert run_job(jobs.settings(stack, model, tmp_path / "out")).exit_status == 0
    with pytest.raises(UsageError, match="InstanceNormalization sees the whole frame"):
        run_job(jobs.settings(stack, model, tmp_path / "tiled", tile=64))


def test_a_model_of_several_classes_gives_a_class_map(
    tmp_path: Path, stack: Path, make_model: Any
) -> None:
    network = networks.unet((4, 4), n_outputs=3, seed=5, positive=False)
    classes = ("background", "left", "right")
    model = make_model(network, networks.spec(network, classes=classes, name="heart"))
    output = tmp_path / "out"
    summary = run_job(jobs.settings(stack, model, output))
    assert summary.exit_status == 0
    found = labels_of(output, "stack", "heart")
    assert found.dtype == np.uint8 and set(np.unique(found)) <= {0, 1, 2}
    rows = pq.read_table(output / "frames.parquet").to_pylist()
    for t, row in enumerate(rows):
        fractions = [row[f"fraction_{name}"] for name in classes]
        assert fractions == pytest.approx(np.bincount(found[t].ravel(), minlength=3) / 6144)
    group = zarr.open_group(output / "stack.zarr/labels/heart", mode="r")
    shown = group.attrs["ome"]["image-label"]  # type: ignore[index]
    assert [p["name"] for p in shown["properties"]] == list(classes)  # type: ignore
    assert shown["colors"][1] == {"label-value": 1, "rgba": [255, 0, 0, 255]}  # type: ignore


def test_job_json_tells_how_the_result_was_made(
    tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    run_job(jobs.settings(stack, threshold_model, tmp_path / "out", min_area=5))
    told = json.loads((tmp_path / "out/job.json").read_bytes())
    resolved = told["settings"]["resolved"]
    assert resolved["min_area"] == 5 and resolved["device"] in ("cpu", "cuda:0")
    assert "Provider" in resolved["runtime"] and "auto" not in resolved.values()
    assert told["inputs"][0]["shape"] == [14, 64, 96]
    assert len(told["inputs"][0]["pixels_sha256"]) == len(told["model"]["sha256"]) == 64
    assert set(told["seconds_by_stage"]) >= {"read", "network", "labels", "write"}
    assert told["frames_per_second"] > 0 and told["machine"]["processor"]


def test_empty_shards_are_written(tmp_path: Path, threshold_model: Path) -> None:
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((3, 40, 50)))
    output = tmp_path / "out"
    run_job(jobs.settings(stack, threshold_model, output, min_area=10**6))
    assert (output / "stack.zarr/labels/threshold/0/c/0/0/0").is_file()
    assert not labels_of(output, "stack").any()


def test_sessions_are_released(tmp_path: Path, stack: Path, threshold_model: Path) -> None:
    run_job(jobs.settings(stack, threshold_model, tmp_path / "out"))
    assert not worker._sessions._entries and not worker._stacks._entries
    shutil.rmtree(tmp_path / "out")


def test_a_frame_the_network_cannot_tell_anything_of_is_set_aside(
    tmp_path: Path, make_model: Any
) -> None:
    network = networks.threshold_model()
    last = network.graph.node[-1]  # a sigmoid, behind what is negative for dark pixels
    root = onnx.helper.make_node("Sqrt", [last.input[0]], ["root"])
    last.input[0] = "root"
    network.graph.node.insert(len(network.graph.node) - 1, root)
    fixed = Normalisation(policy="range", low=-1000, high=1000)
    model = make_model(network, networks.spec(network, normalisation=fixed))
    frames = np.full((3, 40, 50), 500, np.int16)
    frames[1, 3, 4] = -900
    stack = jobs.write_stack(tmp_path / "stack.tif", frames)
    summary = run_job(jobs.settings(stack, model, tmp_path / "out"))
    assert (summary.exit_status, summary.frames_failed) == (1, 1)
    told = json.loads((tmp_path / "out/failures.json").read_bytes())
    assert [(f["t"], "not finite" in f["reason"]) for f in told["frames"]] == [(1, True)]


def test_a_network_of_nan_is_refused(tmp_path: Path, make_model: Any) -> None:
    network = networks.unet((2, 2))
    weights = network.graph.initializer[-1]
    values = onnx.numpy_helper.to_array(weights) * np.float32(np.nan)
    weights.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weights.name))
    model = make_model(network, networks.spec(network))
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((2, 40, 50)))
    with pytest.raises(ModelError, match="not finite"):
        run_job(jobs.settings(stack, model, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_binary_model_without_instances_gives_a_class_map(tmp_path: Path, stack: Path) -> None:
    model = make_threshold_model(tmp_path / "map.onnx", instances="none")
    run_job(jobs.settings(stack, model, tmp_path / "out"))
    instances = make_threshold_model(tmp_path / "ids.onnx")
    run_job(jobs.settings(stack, instances, tmp_path / "ids"))
    found = labels_of(tmp_path / "out", "stack")
    assert found.dtype == np.uint8
    assert np.array_equal(found > 0, labels_of(tmp_path / "ids", "stack") > 0)
    with pytest.raises(UsageError, match="--min-area"):
        run_job(jobs.settings(stack, model, tmp_path / "area", min_area=3))


def test_one_short_stack_does_not_stop_the_others(
    tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    short = jobs.write_stack(tmp_path / "short.tif", jobs.blobs((2, 64, 96)))
    job = jobs.settings([short, stack], threshold_model, tmp_path / "out", frames=(5, 8))
    summary = run_job(job)
    assert summary.exit_status == 1 and summary.frames_done == 3
    assert "selects nothing of its 2 frames" in summary.refused[0]


@pytest.mark.parametrize("spelling", ["image.zarr", "there/../image.zarr", "link.zarr"])
def test_a_zarr_by_any_spelling_of_its_path(
    tmp_path: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    data = jobs.blobs((3, 40, 50))
    zarr.create_array(tmp_path / "image.zarr", data=data, chunks=(1, 40, 50))
    (tmp_path / "there").mkdir()
    (tmp_path / "link.zarr").symlink_to(tmp_path / "image.zarr")
    monkeypatch.chdir(tmp_path)
    summary = run_job(jobs.settings(spelling, threshold_model, tmp_path / "out", axes="TYX"))
    assert (summary.exit_status, summary.frames_done) == (0, 3)


def test_a_name_that_is_not_utf8_is_refused(
    tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    import os

    odd = os.fsdecode(os.fsencode(tmp_path) + b"/lat\xb5.tif")
    shutil.copy(stack, odd)
    job = jobs.settings([odd, stack], threshold_model, tmp_path / "out")
    summary = run_job(job)
    assert summary.exit_status == 1 and "not UTF-8" in summary.refused[0]


def test_nothing_listens_beyond_the_loopback_address(
    tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    heard: set[str] = set()

    class Listens(Progress):
        def advance(self, outcome: Outcome) -> None:
            found = psutil.Process().net_connections(kind="inet")
            heard.update(c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN)

    run_job(jobs.settings(stack, threshold_model, tmp_path / "out"), Listens())
    assert heard <= {"127.0.0.1"}


def test_missing_chunks_are_told_by_frame(tmp_path: Path, threshold_model: Path) -> None:
    data = jobs.blobs((3, 64, 80))
    array = zarr.create_array(tmp_path / "a.zarr", data=data, chunks=(1, 32, 40))
    (tmp_path / "a.zarr/c/1/0/1").unlink()
    assert not array[1, :32, 40:].any()  # read as background, without a word
    for constants in ({}, {"BLOCK_PIXELS": 2000, "REGION": 32, "GRAIN": 8}):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in constants.items():
                patch.setattr(layout, name, value)
            output = tmp_path / f"out{len(constants)}"
            stack = tmp_path / "a.zarr"
            summary = run_job(jobs.settings(stack, threshold_model, output, axes="TYX"))
        assert (summary.exit_status, summary.missing_chunks) == (0, 1)
        rows = pq.read_table(output / "frames.parquet").to_pylist()
        assert [row["missing_chunks"] for row in rows] == [0, 1, 0]


def test_a_halo_that_is_too_small_is_measured(
    tmp_path: Path, make_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    network = networks.unet((4, 8, 8), positive=False)
    model = make_model(network, networks.spec(network))
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((2, 200, 220)))
    run_job(jobs.settings(stack, model, tmp_path / "rough", halo=0, tile=64))
    told = [r.getMessage() for r in caplog.records]
    assert any("below the" in text and "can see" in text for text in told)
    (measured,) = [text for text in told if "probabilities of one frame differ" in text]
    assert float(re.search(r"up to ([0-9.e-]+) from", measured)[1]) > 0  # type: ignore[index]
    caplog.clear()
    run_job(jobs.settings(stack, model, tmp_path / "exact", tile=64))
    assert not [r for r in caplog.records if "differ" in r.getMessage()]


def test_optimisation_that_gives_wrong_results_is_turned_down(
    tmp_path: Path, stack: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    good = run_job(jobs.settings(stack, threshold_model, tmp_path / "good"))
    load = OnnxRuntime.load

    def disturbed(self: Any, graph: bytes, target: Target, threads: int, in_flight: int) -> Any:
        compute = load(self, graph, target, threads, in_flight)

        def off(pixels: Any, statistics: Any, out: Any) -> None:
            compute(pixels, statistics, out)
            out -= 0 if target.caution else 0.2

        return off

    monkeypatch.setattr(OnnxRuntime, "load", disturbed)
    done = run_job(jobs.settings(stack, threshold_model, tmp_path / "out"))
    assert any("graph optimisation is turned off" in r.getMessage() for r in caplog.records)
    told = json.loads((tmp_path / "out/job.json").read_bytes())
    assert told["settings"]["resolved"]["runtime"].endswith("unoptimised")
    assert done.objects == good.objects
    assert np.array_equal(
        labels_of(tmp_path / "out", "stack"), labels_of(tmp_path / "good", "stack")
    )


def test_dask_does_not_profile(tmp_path: Path, stack: Path, threshold_model: Path) -> None:
    """Its profiler may stop a process of Python 3.11 for ever (python/cpython#106883)."""
    seen: list[bool] = []

    class Looks(Progress):
        def advance(self, outcome: Outcome) -> None:
            seen.append(dask.config.get("distributed.worker.profile.enabled"))

    run_job(jobs.settings(stack, threshold_model, tmp_path / "out"), Looks())
    assert seen and not any(seen)
