"""Jobs as they run on a device, by the CPU provider: batches, buffers, decisions in the graph."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from engine.commands.running import plan_lines
from engine.errors import JobStopped, OutputError, UsageError
from engine.geometry import layout
from engine.job.executors import SerialExecutor, dask_by_device
from engine.job.job import job_context, merge_job, run_job
from engine.job.prepare import prepare_job
from engine.plan import memory
from engine.runtimes.base import Session
from engine.runtimes.cuda import VISIBLE
from engine.runtimes.registry import RUNTIMES
from engine.runtimes.slots import Slots
from engine.steps import worker
from engine.steps.worker import warm_up
from engine.store.folder import JobFolder
from tests import networks
from tests.conftest import make_core_model
from tests.engine import jobs
from tests.engine.device_runtime import PLACE, DeviceRuntime
from tests.engine.jobs import labels_of

ROUNDED = 0.5001 / 255  # of a probability that comes back as a byte


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "device", PLACE)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    """Shapes and types of all batches whose outputs are decided, as they go through a session."""
    found: list[tuple[Any, ...]] = []
    original = Session.run

    def run(self: Session, pixels: Any, *rest: Any) -> Any:
        if self.is_decided:
            found.append(pixels.shape)
        return original(self, pixels, *rest)

    monkeypatch.setattr(Session, "run", run)
    yield found


def both(stack: Path, model: Path, folder: Path, **changes: Any) -> tuple[Path, Path]:
    """The same job on the host and on the device."""
    for name in ("auto", "device"):
        job = jobs.settings(stack, model, folder / name, runtime=name, **changes)
        run_job(job, executor=SerialExecutor())
    return folder / "auto", folder / "device"


def assert_same(host: Path, device: Path) -> None:
    """All labels byte by byte, and all columns but for probabilities, which are rounded."""
    wanted, found = (
        {key: data for key, data in jobs.contents(one / "stack.zarr").items() if "/c/" in key}
        for one in (host, device)
    )
    assert found == wanted and wanted
    for name in ("frames.parquet", "objects.parquet"):
        rows = [pq.read_table(one / name).to_pylist() for one in (host, device)]
        assert len(rows[0]) == len(rows[1]) > 0
        for one, other in zip(*rows, strict=True):
            for column, value in one.items():
                if "probability" not in column:
                    assert other[column] == value, column
                elif value is not None:
                    assert abs(other[column] - value) <= ROUNDED


def test_labels_are_those_of_the_host(
    tmp_path: Path, stack: Path, threshold_model: Path, small_blocks: None, runs: list[Any]
) -> None:
    assert_same(*both(stack, threshold_model, tmp_path))
    # Fourteen frames in blocks of three: all runs are of one shape.
    assert runs == [(3, 1, 64, 96)] * 5


def test_labels_by_cores_are_those_of_the_host(
    tmp_path: Path, stack: Path, small_blocks: None
) -> None:
    assert_same(*both(stack, make_core_model(tmp_path / "m.onnx"), tmp_path, min_area=9))


@pytest.mark.parametrize("objects", [None, "b"])
def test_class_maps_are_those_of_the_host(
    tmp_path: Path, small_blocks: None, objects: str | None
) -> None:
    data = np.random.default_rng(0).integers(0, 3, (4, 64, 96)).astype(np.uint8)
    stack = jobs.write_stack(tmp_path / "stack.tif", data)
    model = networks.class_map_model(3)
    spec = networks.class_map_spec(model, "background", "a", "b", name="threshold")
    path = networks.save(tmp_path / "m.onnx", model, spec)
    host, device = both(stack, path, tmp_path, objects=objects)
    assert np.array_equal(labels_of(device, "stack"), data)
    if objects:
        assert_same(host, device)


@pytest.mark.parametrize("connect", ["none", "z"])
def test_cut_frames_are_those_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: list[Any], connect: str
) -> None:
    for name, value in {"BLOCK_PIXELS": 2000, "REGION": 32, "GRAIN": 8}.items():
        monkeypatch.setattr(layout, name, value)
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((2, 40, 60)), "ZYX")
    model = make_core_model(tmp_path / "m.onnx")
    # Regions in tiles of 16 px, eight of them at once.
    monkeypatch.setattr(memory, "BATCHES", (8 * 16 * 16, 0))
    assert_same(*both(stack, model, tmp_path, connect=connect, tile=16))
    assert {one[2:] for one in runs} == {(16, 16)} and len({one[0] for one in runs}) == 1
    assert runs[0][0] > 1


def test_a_frame_does_not_depend_on_those_beside_it(
    tmp_path: Path, threshold_model: Path, small_blocks: None, runs: list[Any]
) -> None:
    data = jobs.blobs((7, 64, 96))
    data[1] = 700  # blank: it does not go through the network
    folder = tmp_path / "stack"
    folder.mkdir()
    for t, frame in enumerate(data):
        tifffile.imwrite(folder / f"t{t}.tif", frame)
    for name in ("t3.tif", "t5.tif"):  # first of its block, and in the middle
        good = (folder / name).read_bytes()
        (folder / name).write_bytes(good[: len(good) // 2])
    host, device = both(folder, threshold_model, tmp_path)
    assert_same(host, device)
    assert (host / "failures.json").read_text() == (device / "failures.json").read_text()
    assert set(runs) == {(3, 1, 64, 96)}
    labels = labels_of(device, "stack")
    assert [bool(frame.any()) for frame in labels] == [n not in (1, 3, 5) for n in range(7)]
    # Repaired, and repeated beside those that are done.
    for t in (3, 5):
        tifffile.imwrite(folder / f"t{t}.tif", data[t])
    for output, name in ((host, "auto"), (device, "device")):
        again = jobs.settings(folder, threshold_model, output, runtime=name, retry_failed=True)
        assert run_job(again).exit_status == 0
    assert_same(host, device)


def test_workers_change_nothing(
    tmp_path: Path, stack: Path, make_model: Any, small_blocks: None
) -> None:
    network = networks.unet((4, 8), positive=False)
    model = make_model(network, networks.spec(network))
    for workers in (1, 4):
        output = tmp_path / str(workers)
        run_job(jobs.settings(stack, model, output, runtime="device", workers=workers))
    assert jobs.contents(tmp_path / "1") == jobs.contents(tmp_path / "4")


def test_kept_probabilities_come_back_whole(
    tmp_path: Path, stack: Path, threshold_model: Path, runs: list[Any]
) -> None:
    host, device = both(stack, threshold_model, tmp_path, keep="probability", frames=(0, 3))
    assert_same(host, device)
    assert not runs and any((device / "stack.zarr/probability").rglob("c/*"))
    for name in ("frames.parquet", "objects.parquet"):  # nothing is rounded
        assert (host / name).read_bytes() == (device / name).read_bytes()


def test_where_memory_runs_out_tiles_become_smaller(
    tmp_path: Path, stack: Path, make_model: Any, small_blocks: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    network = networks.unet((4, 8), positive=False)
    model = make_model(network, networks.spec(network, name="threshold"))
    original, failed = Slots.__call__, []

    def full(self: Slots, pixels: Any, *rest: Any) -> None:
        if pixels[:, 0].size > 3 * 48 * 48 and len(pixels) > 1:
            failed.append(pixels.shape)
            raise MemoryError("CUDA failure 2: out of memory")
        original(self, pixels, *rest)

    run_job(jobs.settings(stack, model, tmp_path / "roomy", runtime="device"))
    worker._smaller_tiles.clear()
    monkeypatch.setattr(Slots, "__call__", full)
    run_job(jobs.settings(stack, model, tmp_path / "full", runtime="device", workers=1))
    assert failed == [(3, 1, 64, 96)]
    a, b = (labels_of(tmp_path / name, "stack") for name in ("roomy", "full"))
    assert np.array_equal(a, b) and a.any()


def test_each_device_gets_a_process_and_the_bytes_are_the_same(
    tmp_path: Path, stack: Path, threshold_model: Path, small_blocks: None
) -> None:
    job = jobs.settings(stack, threshold_model, tmp_path / "serial")
    run_job(job, executor=SerialExecutor())
    with dask_by_device(("3", "GPU-ab"), 1) as executor:
        assert sorted(executor.everywhere(os.getenv, VISIBLE)) == ["3", "GPU-ab"]
        assert len(set(executor.everywhere(os.getpid)) - {os.getpid()}) == 2
        assert executor.everywhere(signal.getsignal, signal.SIGINT) == [signal.SIG_IGN] * 2
        site = executor.site(jobs.CPU)
        assert (site.cores, site.target) == (1, jobs.CPU)
        run_job(job.model_copy(update={"output": tmp_path / "apart"}), executor=executor)
    assert jobs.contents(tmp_path / "apart") == jobs.contents(tmp_path / "serial")


def test_all_devices_without_one_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    monkeypatch.setattr("engine.job.executors.visible_devices", lambda: ())
    with pytest.raises(UsageError, match="--device cuda:all: there is no GPU here"):
        run_job(jobs.settings(stack, threshold_model, tmp_path / "out", device="cuda:all"))
    assert not (tmp_path / "out").exists()


def test_what_ran_at_once_is_on_record(
    tmp_path: Path, stack: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.settings(stack, threshold_model, tmp_path / "out", runtime="device", frames=(0, 4))
    run_job(job)
    told = json.loads((tmp_path / "out/job.json").read_bytes())["settings"]["resolved"]["runtime"]
    assert told.endswith(" CPUExecutionProvider float32, runs of 4 x 64 x 96")
    assert merge_job(JobFolder(tmp_path / "out")).already_complete
    # A device's library may choose other kernels for other shapes.
    monkeypatch.setattr(memory, "BATCHES", (0,))
    with pytest.raises(OutputError, match="runs of 1 x 64 x 96"):
        run_job(job)


def test_an_engine_is_part_of_what_a_job_is(
    tmp_path: Path, stack: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.settings(stack, threshold_model, tmp_path / "out", runtime="device", frames=(0, 2))
    monkeypatch.setattr(DeviceRuntime, "engine", lambda *_: "ab" * 32)
    run_job(job)
    told = json.loads((tmp_path / "out/job.json").read_bytes())["settings"]["resolved"]["runtime"]
    assert ", engine " in told and run_job(job).already_complete
    ready = replace(prepare_job(job), engines=("cd" * 32,))
    with pytest.raises(JobStopped, match="has built another engine here"):
        warm_up(job_context(ready, ""), ready.plan.stacks)
    monkeypatch.setattr(DeviceRuntime, "engine", lambda *_: "ef" * 32)
    with pytest.raises(OutputError, match="engine"):
        run_job(job)


def test_a_slot_is_one_runs_alone() -> None:
    at_once, most = itertools.count(), 0
    inside, lock, made = 0, threading.Lock(), []

    def compute(pixels: Any, statistics: Any, out: Any) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        out[...] = pixels + statistics[0, 0, 0] + 0 * next(at_once)
        with lock:
            inside -= 1

    def allocate(shape: tuple[int, ...], dtype: Any) -> Any:
        made.append(np.full(shape, 99, dtype))
        return made[-1]

    slots = Slots(compute, 2, allocate)

    def run(n: int) -> bool:
        size = 4 if n < 40 else 2
        out = np.empty((1, 1, size, size), np.float32)
        slots(np.full(out.shape, n, np.uint16), np.full((1, 1, 2), n, np.float32), out)
        return bool((out == 2 * n).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(40)))
        assert len(made) <= 2 * 3 and most <= 2
        assert all(pool.map(run, range(40, 60)))
    assert len(made) <= 2 * 3 * 2


def test_a_slot_is_free_again_after_a_failure() -> None:
    def compute(*_: Any) -> None:
        raise RuntimeError("it broke")

    slots = Slots(compute, 1, np.empty)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="it broke"):
            slots(np.zeros((1, 1, 2, 2)), np.zeros((1, 1, 2)), np.zeros((1, 1, 2, 2)))


def test_the_plan_tells_what_runs_at_once(
    tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    lines = plan_lines(
        prepare_job(jobs.settings(stack, threshold_model, tmp_path / "out", runtime="device"))
    )
    assert any("whole frames, 14 at once, 0% halo and padding" in line for line in lines)
    assert any(" MB of the device's" in line for line in lines)
