"""Frames cut into regions, and planes that connect: jobs that equal SciPy on the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import JobStopped, OutputError, StackError, UsageError
from engine.geometry import layout
from engine.job.attempts import run_task
from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.job.prepare import prepare_job
from engine.job.relabel import relabel
from engine.labels.postprocessing import Postprocessing
from engine.results.verify.run import verify_job
from tests import networks
from tests.conftest import make_core_model, make_threshold_model
from tests.engine import jobs
from tests.engine.cores import plain_objects
from tests.engine.jobs import Shuffled, labels_of
from tests.engine.test_stitch import renumbered, whole_labels


@pytest.fixture
def small_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of more than 2,000 px are cut into regions of about 32 x 32."""
    for name, value in REGIONS.items():
        monkeypatch.setattr(layout, name, value)


REGIONS = {"BLOCK_PIXELS": 2000, "REGION": 32, "GRAIN": 8}
WHOLE = {"BLOCK_PIXELS": 10**9}


def masks_of(frame: Any, *levels: float) -> list[Any]:
    """What the threshold model, or that with cores, makes of a frame, (Y, X)."""
    low, high = np.percentile(frame, (1, 99.8), method="inverted_cdf").astype(np.float32)
    return [(frame - low) / (high - low) >= np.float32(level) for level in levels]


def expected(path: Path, connect_z: bool = False, min_area: int = 0) -> Any:
    """What the threshold model and SciPy make of a stack, (T, Z, Y, X)."""
    frames = tifffile.imread(path)
    frames = frames.reshape(-1, frames.shape[-3] if connect_z else 1, *frames.shape[-2:])
    masks = [masks_of(frame, 0.5) for frame in frames.reshape(-1, *frames.shape[-2:])]
    volumes = np.array(masks).reshape(frames.shape)
    return np.stack([whole_labels(volume, connect_z, min_area) for volume in volumes])


def with_pinholes(shape: tuple[int, ...], seed: int = 0) -> Any:
    """Blobs with single pixels that are dark."""
    data = jobs.blobs(shape, seed)
    data[np.random.default_rng(seed).random(shape) < 0.01] = 0
    return data


def by_cores(data: Any, unreached: str = "drop", connect_z: bool = False, min_area: int = 0) -> Any:
    """What the model with cores makes of (T, Z, Y, X), the plain way."""
    how = Postprocessing(
        0.5, instances="cores", core_threshold=0.5, growth=4, pinhole=3, unreached=unreached
    )
    out = []
    for volume in data:
        masks = [masks_of(frame, 0.4, 0.6) for frame in volume]
        foreground, core = (np.stack(planes) for planes in zip(*masks, strict=True))
        labels = plain_objects(foreground, core, how, connect_z=connect_z)
        parts = [labels] if connect_z else labels[:, None]
        out.append(np.concatenate([renumbered(part, min_area) for part in parts]))
    return np.stack(out)


def tables(output: Path) -> tuple[Any, Any]:
    frames = pq.read_table(output / "frames.parquet").to_pylist()
    return frames, pq.read_table(output / "objects.parquet").to_pylist()


def assert_rows_equal(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.keys() == b.keys()
        for name, value in b.items():
            # Sums of float32 probabilities depend on their order in the last digits.
            assert a[name] == (pytest.approx(value) if isinstance(value, float) else value), name


def test_a_cut_frame_equals_the_whole(
    tmp_path: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((3, 90, 130)))
    for name, constants in (("whole", WHOLE), ("cut", REGIONS)):
        for key, value in constants.items():
            monkeypatch.setattr(layout, key, value)
        done = run_job(jobs.settings(stack, threshold_model, tmp_path / name, min_area=20))
        assert (done.exit_status, done.frames_done) == (0, 3)
    assert np.array_equal(labels_of(tmp_path / "cut", "stack"), expected(stack, min_area=20)[:, 0])
    assert len(list((tmp_path / "cut/stack.zarr/labels/threshold/0/c/0").rglob("*"))) > 6
    for found, wanted in zip(tables(tmp_path / "cut"), tables(tmp_path / "whole"), strict=True):
        assert_rows_equal(found, wanted)
    assert not (tmp_path / "cut/.stackseg/work").exists()
    assert not (tmp_path / "cut/.stackseg/attempts").is_dir() or not [
        p for p in (tmp_path / "cut/.stackseg/attempts").rglob("*") if p.is_file()
    ]


@pytest.mark.parametrize("unreached", ["drop", "keep"])
def test_objects_by_cores_of_a_cut_frame_equal_those_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unreached: str
) -> None:
    model = make_core_model(tmp_path / "model.onnx", unreached=unreached)
    data = with_pinholes((3, 90, 130))
    stack = jobs.write_stack(tmp_path / "stack.tif", data)
    for name, constants in (("whole", WHOLE), ("cut", REGIONS)):
        for key, value in constants.items():
            monkeypatch.setattr(layout, key, value)
        asked = {"min_area": 20, "keep": "probability", "with_image": unreached == "keep"}
        run_job(jobs.settings(stack, model, tmp_path / name, **asked))
        assert not len(verify_job(tmp_path / name).problems)
    wanted = by_cores(data[:, None], unreached, min_area=20)[:, 0]
    assert wanted.max() > 10
    for name in ("whole", "cut"):
        assert np.array_equal(labels_of(tmp_path / name, "stack"), wanted), name
    for found, rows in zip(tables(tmp_path / "cut"), tables(tmp_path / "whole"), strict=True):
        assert_rows_equal(found, rows)
    # From what was kept, margins are the neighbours'; a longer growth needs more of them.
    for growth in (2, 6):
        for name in ("whole", "cut"):
            relabel(tmp_path / name, f"again{growth}", growth=growth, min_area=0)
            assert not len(verify_job(tmp_path / f"{name}/relabelled/again{growth}").problems)
        one, other = (
            labels_of(tmp_path / name, "stack", f"again{growth}") for name in ("whole", "cut")
        )
        assert np.array_equal(one, other) and not np.array_equal(one, wanted)


def test_a_cut_frame_through_a_network_with_a_halo(
    tmp_path: Path, make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = networks.unet((4, 6, 8), n_channels=2, seed=3, positive=False)
    model = make_model(network, networks.spec(network, n_channels=2, name="threshold"))
    stack = jobs.write_stack(tmp_path / "s.tif", jobs.blobs((2, 2, 93, 131)), axes="TCYX")
    found = []
    for name, constants in (("whole", WHOLE), ("cut", REGIONS)):
        for key, value in constants.items():
            monkeypatch.setattr(layout, key, value)
        job = prepare_job(jobs.settings(stack, model, tmp_path / name))
        assert job.plan.stacks[0].layout.is_cut == (name == "cut")
        run_job(jobs.settings(stack, model, tmp_path / name))
        found.append((labels_of(tmp_path / name, "s"), tables(tmp_path / name)))
    assert found[0][0].any() and np.array_equal(found[0][0], found[1][0])
    for wanted, cut in zip(found[0][1], found[1][1], strict=True):
        assert_rows_equal(cut, wanted)
    # Tiles within a region: smaller ones change nothing either.
    run_job(jobs.settings(stack, model, tmp_path / "tiles", tile=72))
    assert np.array_equal(labels_of(tmp_path / "tiles", "s"), found[0][0])


@pytest.mark.parametrize("method", ["components", "cores"])
@pytest.mark.parametrize("constants", [WHOLE, {"BLOCK_PIXELS": 3 * 40 * 50}, REGIONS])
def test_labels_connect_along_z(
    tmp_path: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch,
    constants: dict[str, int], method: str,
) -> None:  # fmt: skip
    for key, value in constants.items():
        monkeypatch.setattr(layout, key, value)
    side = (48, 50) if constants is REGIONS else (40, 50)
    data = jobs.blobs((2, 7, *side)) if method == "components" else with_pinholes((2, 7, *side))
    stack = jobs.write_stack(tmp_path / "stack.tif", data, axes="TZYX")
    model, wanted = threshold_model, expected(stack, connect_z=True, min_area=9)
    if method == "cores":
        model = make_core_model(tmp_path / "cores.onnx")
        wanted = by_cores(data, connect_z=True, min_area=9)
    done = run_job(jobs.settings(stack, model, tmp_path / "out", connect="z", min_area=9))
    found = labels_of(tmp_path / "out", "stack")
    assert np.array_equal(found, wanted)
    assert done.objects == sum(int(volume.max()) for volume in wanted)
    frames, objects = tables(tmp_path / "out")
    assert [f["objects"] for f in frames] == [len(np.unique(p[p > 0])) for v in wanted for p in v]
    areas = {(o["t"], o["z"], o["label"]): o["area_px"] for o in objects}
    for (t, z, label), area in areas.items():
        assert area == (wanted[t, z] == label).sum()
    assert len(areas) == len(objects) == sum(f["objects"] for f in frames)
    assert objects == sorted(objects, key=lambda o: (o["t"], o["z"], o["label"]))


def test_a_class_map_of_a_cut_frame(
    tmp_path: Path, make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = networks.unet((4, 4), n_outputs=3, seed=16, positive=False)
    # With these biases at the end the three classes are about as frequent.
    bias = network.graph.initializer[-1]
    bias.CopyFrom(onnx.numpy_helper.from_array(np.float32([-0.069, -0.139, -0.088]), bias.name))
    spec = networks.spec(network, classes=("background", "left", "right"), name="threshold")
    model = make_model(network, spec)
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((2, 90, 130)))
    found = []
    for name, constants in (("whole", WHOLE), ("cut", REGIONS)):
        for key, value in constants.items():
            monkeypatch.setattr(layout, key, value)
        run_job(jobs.settings(stack, model, tmp_path / name))
        found.append((labels_of(tmp_path / name, "stack"), tables(tmp_path / name)))
    assert np.array_equal(found[0][0], found[1][0]) and len(np.unique(found[0][0])) > 1
    assert_rows_equal(found[1][1][0], found[0][1][0])


@settings(max_examples=8)
@given(seed=st.integers(0, 2**16), stops=st.lists(st.integers(0, 9), max_size=4))
def test_any_order_and_any_stops_end_in_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, seed: int, stops: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("job")
    model = make_threshold_model(folder / "model.onnx")
    volume = jobs.write_stack(folder / "v.tif", jobs.blobs((3, 50, 60), seed=2), axes="ZYX")
    flat = jobs.write_stack(folder / "f.tif", jobs.blobs((2, 30, 40), seed=1))
    with pytest.MonkeyPatch.context() as patch:
        for key, value in REGIONS.items():
            patch.setattr(layout, key, value)
        inputs = [volume, flat]
        whole = jobs.settings(inputs[:1], model, folder / "whole", connect="z")
        run_job(whole, executor=SerialExecutor())
        parts = jobs.settings(inputs[:1], model, folder / "parts", connect="z")
        ran: list[tuple[str, int]] = []
        for i, stop in enumerate([*stops, None]):
            executor = Shuffled(seed + i, stop)
            try:
                assert run_job(parts, executor=executor).exit_status == 0
            except JobStopped:
                assert stop is not None
            ran += executor.tasks
    assert len(set(ran)) == len(ran)  # nothing twice
    assert jobs.contents(folder / "parts") == jobs.contents(folder / "whole")


def test_a_failed_frame_costs_that_frame(
    tmp_path: Path, threshold_model: Path, small_regions: None
) -> None:
    frames = jobs.blobs((3, 60, 70)).astype(np.float32)
    good = jobs.write_stack(tmp_path / "good.tif", frames)
    frames[1, 50, 60] = np.nan
    bad = jobs.write_stack(tmp_path / "bad.tif", frames)
    run_job(jobs.settings(good, threshold_model, tmp_path / "good"))
    done = run_job(jobs.settings(bad, threshold_model, tmp_path / "bad"))
    assert (done.exit_status, done.frames_failed) == (1, 1)
    wanted, found = labels_of(tmp_path / "good", "good"), labels_of(tmp_path / "bad", "bad")
    assert not found[1].any() and wanted[1].any()
    assert np.array_equal(found[[0, 2]], wanted[[0, 2]])


def test_a_failed_plane_costs_that_plane(
    tmp_path: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for constants in (WHOLE, REGIONS):
        for key, value in constants.items():
            monkeypatch.setattr(layout, key, value)
        frames = jobs.blobs((5, 48, 50)).astype(np.float32)
        frames[2, 3, 4] = np.nan
        name = f"v{constants['BLOCK_PIXELS']}"
        stack = jobs.write_stack(tmp_path / f"{name}.tif", frames, axes="ZYX")
        done = run_job(jobs.settings(stack, threshold_model, tmp_path / name, connect="z"))
        assert (done.exit_status, done.frames_failed) == (1, 1)
        frames[2] = 0
        frames[2, 0, 0] = 1  # a plane without foreground in its place
        masks = [
            (f - low) / (high - low) >= 0.5
            for f in frames
            for low, high in [np.percentile(f, (1, 99.8), method="inverted_cdf")]
            if high > low
        ]
        masks.insert(2, np.zeros((48, 50), bool))
        assert np.array_equal(labels_of(tmp_path / name, name), whole_labels(np.array(masks), True))


def test_what_cannot_be_connected_is_refused(
    tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    with pytest.raises(StackError, match="no Z axis"):
        run_job(jobs.settings(stack, threshold_model, tmp_path / "out", connect="z"))
    classes = make_threshold_model(tmp_path / "map.onnx", instances="none")
    with pytest.raises(UsageError, match="--connect"):
        run_job(jobs.settings(stack, classes, tmp_path / "out", connect="z"))


def test_a_network_that_sees_the_whole_frame_is_never_cut(
    tmp_path: Path, make_model: Any, small_regions: None
) -> None:
    network = networks.unet((4, 4), instance_norm=True, positive=False)
    model = make_model(network, networks.spec(network))
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((2, 90, 130)))
    job = prepare_job(jobs.settings(stack, model, tmp_path / "out"))
    assert not job.plan.stacks[0].layout.is_cut and job.plan.stacks[0].tiling.n_tiles == 1
    with pytest.raises(UsageError, match="cannot be cut into tiles"):
        prepare_job(jobs.settings(stack, model, tmp_path / "out", tile=64))
    halved = prepare_job(jobs.settings(stack, model, tmp_path / "out", halo=8))
    assert halved.plan.stacks[0].layout.is_cut
    assert any("no halo makes tiles exact" in w for w in halved.plan.warnings)


def test_a_zarr_is_cut_as_a_tiff(
    tmp_path: Path, threshold_model: Path, small_regions: None
) -> None:
    data = jobs.blobs((2, 90, 130))
    tiff = jobs.write_stack(tmp_path / "a.tif", data)
    zarr.create_array(tmp_path / "b.zarr", data=data, chunks=(1, 33, 41))
    run_job(jobs.settings(tiff, threshold_model, tmp_path / "tiff"))
    run_job(jobs.settings(tmp_path / "b.zarr", threshold_model, tmp_path / "zarr", axes="TYX"))
    assert np.array_equal(labels_of(tmp_path / "tiff", "a"), labels_of(tmp_path / "zarr", "b"))


def test_a_million_objects_in_a_cut_frame(tmp_path: Path, threshold_model: Path) -> None:
    frame = np.zeros((1, 3000, 3000), np.uint8)
    frame[:, 1::3, 1::3] = 200
    stack = jobs.write_stack(tmp_path / "stack.tif", frame)
    done = run_job(jobs.settings(stack, threshold_model, tmp_path / "out"))
    assert done.objects == 1_000_000
    found = labels_of(tmp_path / "out", "stack")[0]
    assert np.array_equal(found[1::3, 1::3].ravel(), np.arange(1, 1_000_001))
    assert np.count_nonzero(found) == 1_000_000


@pytest.mark.parametrize(
    "kind",
    [
        "parts/stack/000003.npz",
        "parts/stack/000003.json",
        "labels/stack/000002.shard",
        "survey/stack/000000.json",
    ],
)
def test_what_is_damaged_on_the_way_is_made_again(
    tmp_path: Path, threshold_model: Path, small_regions: None, kind: str
) -> None:  # fmt: skip
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((1, 90, 130)))
    whole = jobs.settings(stack, threshold_model, tmp_path / "whole")
    run_job(whole)
    job = jobs.settings(stack, threshold_model, tmp_path / "out")

    class Ends(SerialExecutor):
        def run(self, tasks: Any) -> Any:
            order = list(tasks)
            for task in order[: 5 if kind.startswith("survey") else None]:
                if task.step in ("survey", "segment"):
                    yield run_task(task)
            if order[0].step == "segment":
                raise OutputError("the disk is full")

    with pytest.raises(JobStopped):
        run_job(job, executor=Ends())
    (tmp_path / "out/.stackseg/work" / kind).write_bytes(b"{}")
    with pytest.raises(JobStopped, match=r"run the same command again"):
        run_job(job, executor=SerialExecutor())
    assert run_job(job, executor=SerialExecutor()).exit_status == 0
    assert jobs.contents(job.output) == jobs.contents(whole.output)


def test_an_unfinished_job_is_not_retried_with_another_input(
    tmp_path: Path, threshold_model: Path, small_regions: None
) -> None:
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((2, 90, 130)))
    job = jobs.settings(stack, threshold_model, tmp_path / "out")

    class Ends(SerialExecutor):
        def run(self, tasks: Any) -> Any:
            yield from super().run(tasks)
            raise OutputError("the disk is full")

    for _ in range(2):  # survey, segment
        with pytest.raises(JobStopped):
            run_job(job, executor=Ends())
    jobs.write_stack(stack, jobs.blobs((2, 90, 130), seed=7))
    with pytest.raises(OutputError, match="files of the input have changed"):
        run_job(job)
    run_job(job.model_copy(update={"retry_failed": True}))
    assert np.array_equal(labels_of(tmp_path / "out", "stack"), expected(stack)[:, 0])
