"""Blank frames, each channel of which is constant: they have no objects, and are no failure."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from engine.geometry import layout
from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.job.preflight import TRIES, first_tile
from engine.job.prepare import prepare_job
from engine.job.relabel import relabel
from engine.model.spec import Normalisation
from engine.results.pictures.sample import sample
from engine.results.verify.run import verify_job
from engine.store import folder as records
from tests import networks
from tests.conftest import make_threshold_model
from tests.engine import jobs
from tests.engine.jobs import labels_of
from tests.engine.test_cut import REGIONS, WHOLE
from tests.faults.harness import slow

BLANK = {1: 0, 3: 60000, 4: 65535}  # t: value. A network of a fixed range sees it as foreground
SHAPE = (60, 90)
POLICIES = (Normalisation(), Normalisation(policy="range", low=0, high=60000))


@pytest.fixture(autouse=True)
def unflushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small files, and no machine goes down: they need not be on the disk."""
    monkeypatch.setattr(records.os, "fsync", lambda handle: None)


def frames(dtype: str = "uint16", blank: dict[int, int] = BLANK, n: int = 6) -> np.ndarray:
    data = jobs.blobs((n, *SHAPE)).astype(dtype)
    for t, value in blank.items():
        data[t] = value
    return data


def rows_of(output: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(output / "frames.parquet").to_pylist()
    return rows


@pytest.mark.parametrize("constants", [WHOLE, REGIONS], ids=["whole", "cut"])
@pytest.mark.parametrize(
    ("policy", "dtype", "connect"),
    [
        (POLICIES[0], "uint16", "none"), (POLICIES[1], "float32", "z"),
        slow(POLICIES[0], "uint16", "z"), slow(POLICIES[1], "float32", "none"),
    ],
    ids=["percentile-none", "range-z", "percentile-z", "range-none"],
)  # fmt: skip
def test_they_have_no_objects_and_change_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, policy: Normalisation,
    constants: dict[str, int], connect: str,
) -> None:  # fmt: skip
    for name, value in constants.items():
        monkeypatch.setattr(layout, name, value)
    model = make_threshold_model(tmp_path / "threshold.onnx", normalisation=policy)
    output, axes = tmp_path / "out", "ZYX" if connect == "z" else "TYX"
    stack = jobs.write_stack(tmp_path / "stack.tif", frames(dtype), axes)
    job = jobs.settings(stack, model, output, connect=connect, keep="probability")
    assert run_job(job, executor=SerialExecutor()).exit_status == 0
    found = labels_of(output, "stack")
    for n, (row, labels) in enumerate(zip(rows_of(output), found, strict=True)):
        assert row["status"] == "ok" and row["blank"] == (n in BLANK)
        assert (row["objects"] == 0) == (labels.max() == 0) == (n in BLANK)
        if n in BLANK:
            assert row["foreground_fraction"] == 0
            assert row["mean_intensity_background"] == BLANK[n]
    kept = zarr.open_array(output / "stack.zarr/probability/threshold/0")[...]
    assert not kept[list(BLANK)].any()
    # The others are what they are in a stack of themselves, where they are not neighbours.
    if connect == "none":
        others = [n for n in range(6) if n not in BLANK]
        alone = jobs.write_stack(tmp_path / "alone.tif", frames(dtype)[others], axes)
        run_job(jobs.settings(alone, model, tmp_path / "alone"), executor=SerialExecutor())
        assert np.array_equal(labels_of(tmp_path / "alone", "alone"), found[others])
    assert verify_job(output).exit_status == 0
    assert relabel(output, "again", threshold=0.001).exit_status == 0
    again = labels_of(output, "stack", "again")
    assert not again[list(BLANK)].any() and again[0].any()
    rows = rows_of(output / "relabelled/again")
    assert [row["blank"] for row in rows] == [n in BLANK for n in range(6)]
    assert verify_job(output / "relabelled/again").exit_status == 0


@pytest.mark.parametrize("constants", [WHOLE, REGIONS], ids=["whole", "cut"])
def test_a_stack_of_them_alone_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold_model: Path,
    constants: dict[str, int],
) -> None:  # fmt: skip
    for name, value in constants.items():
        monkeypatch.setattr(layout, name, value)
    output = tmp_path / "out"
    stack = jobs.write_stack(tmp_path / "stack.tif", frames(blank=dict.fromkeys(range(6), 9)))
    job = jobs.settings(stack, threshold_model, output)
    done = run_job(job, executor=SerialExecutor())
    assert (done.exit_status, done.frames_failed, done.objects) == (0, 0, 0)
    assert not labels_of(output, "stack").any()
    with (output / "frames.csv").open() as file:
        assert {row["blank"] for row in csv.DictReader(file)} == {"True"}
    assert verify_job(output).exit_status == 0
    retry = job.model_copy(update={"retry_failed": True})
    again = run_job(retry, executor=SerialExecutor())
    assert again.already_complete and again.exit_status == 0


@pytest.mark.parametrize("constants", [WHOLE, REGIONS], ids=["whole", "cut"])
def test_a_class_map_of_one_is_background(
    tmp_path: Path, make_model: Any, monkeypatch: pytest.MonkeyPatch, constants: dict[str, int]
) -> None:
    for name, value in constants.items():
        monkeypatch.setattr(layout, name, value)
    network = networks.unet((4, 4), n_outputs=3, seed=16, positive=False)
    spec = networks.spec(network, classes=("background", "left", "right"), name="threshold")
    stack = jobs.write_stack(tmp_path / "stack.tif", frames())
    output = tmp_path / "out"
    job = jobs.settings(stack, make_model(network, spec), output, keep="probability")
    assert run_job(job, executor=SerialExecutor()).exit_status == 0
    assert not labels_of(output, "stack")[list(BLANK)].any()
    for row in (rows_of(output)[t] for t in BLANK):
        assert row["blank"] and row["fraction_background"] == 1
    assert verify_job(output).exit_status == 0


@pytest.mark.parametrize("constants", [WHOLE, REGIONS], ids=["whole", "cut"])
@pytest.mark.parametrize("policy", POLICIES, ids=lambda how: how.policy)
def test_one_constant_channel_of_two_blanks_no_frame(
    tmp_path: Path, make_model: Any, monkeypatch: pytest.MonkeyPatch, policy: Normalisation,
    constants: dict[str, int],
) -> None:  # fmt: skip
    for name, value in constants.items():
        monkeypatch.setattr(layout, name, value)
    network = networks.unet((4, 4), n_channels=2, seed=3, positive=False)
    spec = networks.spec(network, n_channels=2, name="threshold", normalisation=policy)
    data = np.stack([frames(), frames(blank={3: 7, 5: 7})], axis=1)
    stack = jobs.write_stack(tmp_path / "stack.tif", data, "TCYX")
    output = tmp_path / "out"
    job = jobs.settings(stack, make_model(network, spec), output)
    assert run_job(job, executor=SerialExecutor()).exit_status == 0
    assert [row["t"] for row in rows_of(output) if row["blank"]] == [3]
    assert not labels_of(output, "stack")[3].any()
    # The channel that is constant is 0 to the network: what its value is makes no difference.
    if policy.policy == "percentile":
        data[[1, 4], 0] = 33
        other = jobs.write_stack(tmp_path / "other.tif", data, "TCYX")
        job = jobs.settings(other, tmp_path / "model.onnx", tmp_path / "other")
        run_job(job, executor=SerialExecutor())
        assert np.array_equal(labels_of(tmp_path / "other", "other"), labels_of(output, "stack"))


def test_channels_that_the_network_does_not_take_make_no_difference(
    tmp_path: Path, threshold_model: Path
) -> None:
    data = np.stack([frames(blank={}), frames()], axis=1)
    stack = jobs.write_stack(tmp_path / "stack.tif", data, "TCYX")
    for channel, blank in (("0", []), ("1", list(BLANK))):
        job = jobs.settings(stack, threshold_model, tmp_path / channel, channel=channel)
        run_job(job, executor=SerialExecutor())
        assert [row["t"] for row in rows_of(tmp_path / channel) if row["blank"]] == blank


@pytest.mark.parametrize("constants", [WHOLE, REGIONS], ids=["whole", "cut"])
def test_a_sample_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold_model: Path,
    constants: dict[str, int],
) -> None:  # fmt: skip
    for name, value in constants.items():
        monkeypatch.setattr(layout, name, value)
    stack = jobs.write_stack(tmp_path / "stack.tif", frames())
    found, refused = sample(jobs.settings(stack, threshold_model, tmp_path / "out"), 6)
    assert not refused and not any(one.reason for one in found)
    assert [one.objects == 0 for one in found] == [n in BLANK for n in range(6)]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda how: how.policy)
def test_the_device_is_tried_on_a_frame_with_something_in_it(
    tmp_path: Path, policy: Normalisation
) -> None:
    model = make_threshold_model(tmp_path / "threshold.onnx", normalisation=policy)
    for n_blank in (2, TRIES + 1):  # of the latter the pixels are made up
        data = frames(blank=dict.fromkeys(range(n_blank), 5), n=TRIES + 3)
        stack = jobs.write_stack(tmp_path / f"{n_blank}.tif", data)
        job = prepare_job(jobs.settings(stack, model, tmp_path / "out"))
        found = first_tile(job.model, job.plan)
        assert found is not None
        _, tile, statistics = found
        assert tile.min() < tile.max() and (statistics[:, 0] < statistics[:, 1]).all()
        assert np.isin(tile, data[2]).all() == (n_blank == 2)
