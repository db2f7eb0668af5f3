"""Objects of chosen classes beside the class map: those of SciPy, class by class, on the whole."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from engine.commands.plan import plan
from engine.errors import JobStopped, OutputError, UsageError
from engine.geometry import layout
from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.job.prepare import prepare_job
from engine.job.relabel import relabel
from engine.results.convert.run import convert
from engine.results.inspection import describe
from engine.results.result import open_result
from engine.results.score.sources import open_labels
from engine.results.verify.run import verify_job
from tests import networks
from tests.engine import jobs
from tests.engine.test_stitch import plain_class_objects

CLASSES = ("background", "left", "right", "wall")
REGIONS = {"BLOCK_PIXELS": 600, "REGION": 32, "GRAIN": 8}
BLOCKS = {"BLOCK_PIXELS": 2 * 40 * 50}
WHOLE = {"BLOCK_PIXELS": 10**9}


def class_model(path: Path, **changes: Any) -> Path:
    network = networks.class_map_model(len(CLASSES))
    return networks.save(path, network, networks.class_map_spec(network, *CLASSES, **changes))


def plain_objects(classes: Any, chosen: Any, connect_z: bool = False, min_area: int = 0) -> Any:
    """Objects of a class map, (T, Z, Y, X), the plain way."""
    return np.stack(
        [plain_class_objects(one, tuple(chosen), connect_z, min_area) for one in classes]
    )


def random_classes(shape: tuple[int, ...], seed: int, grain: float) -> Any:
    """Class maps (T, Z, Y, X) whose regions touch each other."""
    rng = np.random.default_rng(seed)
    noise = rng.random((len(CLASSES), *shape))
    smooth = ndimage.gaussian_filter(noise, (0, 0, grain / 2, grain, grain))
    return smooth.argmax(axis=0).astype(np.uint8)


def run(folder: Path, stack: Path, constants: dict[str, int], **changes: Any) -> Path:
    """A job of the class model; its folder."""
    output = folder / f"out{len(list(folder.iterdir()))}"
    model = folder / "model.onnx"
    if not model.exists():
        class_model(model, name="threshold")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in constants.items():
            patch.setattr(layout, name, value)
        job = jobs.settings(stack, model, output, workers=1, **changes)
        assert run_job(job, executor=SerialExecutor()).exit_status == 0
        assert list(verify_job(output).problems.lines()) == []
    return output


def written(folder: Path, classes: Any) -> Path:
    return jobs.write_stack(folder / "stack.tif", classes, axes="TZYX"[-classes.ndim :])


def images(output: Path) -> tuple[Any, Any]:
    return labels(output), labels(output, "threshold-objects")


def labels(output: Path, name: str = "threshold") -> Any:
    return jobs.labels_of(output, "stack", name)


@settings(max_examples=3)
@given(
    seed=st.integers(0, 2**16),
    grain=st.sampled_from([0, 1, 2.5]),
    size=st.tuples(st.integers(25, 60), st.integers(25, 60)),
    chosen=st.sampled_from([("right",), ("left", "wall"), ("left", "right", "wall")]),
    connect=st.sampled_from(["none", "z"]),
    min_area=st.sampled_from([0, 5]),
)
def test_objects_of_a_cut_frame_are_those_of_the_whole_class_map(
    tmp_path_factory: pytest.TempPathFactory, seed: int, grain: float, size: tuple[int, int],
    chosen: tuple[str, ...], connect: str, min_area: int,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("objects")
    classes = random_classes((1, 2, *size), seed, grain)
    asked = {"objects": ",".join(chosen), "connect": connect, "min_area": min_area}
    output = run(folder, written(folder, classes), REGIONS, **asked)
    found, objects = images(output)
    np.testing.assert_array_equal(found, classes)
    numbers = [CLASSES.index(name) for name in chosen]
    np.testing.assert_array_equal(
        objects, plain_objects(classes, numbers, connect == "z", min_area)
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("input"), random_classes((1, 3, 40, 50), 1, 2)[0])


@pytest.fixture(scope="module", params=["blocks", "cut"])
def output(request: Any, stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    constants = {"blocks": BLOCKS, "cut": REGIONS}[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    return run(folder, stack, constants, objects="wall,left", min_area=4, clear_border=False)


@pytest.fixture(scope="module")
def whole(stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("of_all"), stack, WHOLE, objects="left,wall", min_area=4)


def test_relabel_says_how_to_get_other_objects(whole: Path) -> None:
    """It said that no option could change a class map, and not what could be done."""
    with pytest.raises(
        OutputError, match=r"\(left, right, wall\), run stackseg segment with --obj"
    ):
        relabel(whole, "again", min_area=30)


def test_tables_tell_the_class_of_each_object(output: Path, whole: Path) -> None:
    classes, objects = images(output)
    rows = pq.read_table(output / "objects.parquet").to_pylist()
    wanted = pq.read_table(whole / "objects.parquet").to_pylist()
    assert rows == [pytest.approx(row) for row in wanted]
    assert {row["class"] for row in rows} == {"left", "wall"}
    for row in rows:
        inside = objects[row["z"]] == row["label"]
        assert row["area_px"] == inside.sum()
        assert {CLASSES[n] for n in np.unique(classes[row["z"]][inside])} == {row["class"]}
        assert row["mean_probability"] == pytest.approx(1, abs=1e-3)
    frames = pq.read_table(output / "frames.parquet").to_pylist()
    assert [f["objects"] for f in frames] == objects.max(axis=(1, 2)).tolist()
    for frame in frames:  # of the class map: objects that were dropped are foreground too
        assert frame["foreground_fraction"] == pytest.approx((classes[frame["z"]] > 0).mean())
        for n, name in enumerate(CLASSES):
            assert frame[f"fraction_{name}"] == pytest.approx((classes[frame["z"]] == n).mean())
        areas = [row["area_px"] for row in rows if row["z"] == frame["z"]]
        assert frame["area_mean_px"] == pytest.approx(np.mean(areas))


@pytest.mark.parametrize("output", ["cut"], indirect=True)
def test_the_class_map_is_that_of_a_job_without_objects(output: Path, stack: Path) -> None:
    plain = run(output.parent, stack, REGIONS)
    assert not (plain / "stack.zarr/labels/threshold-objects").exists()
    place = "stack.zarr/labels/threshold/0"
    assert jobs.contents(plain / place) == jobs.contents(output / place)


def test_both_are_label_images_of_the_store(output: Path) -> None:
    group = zarr.open_group(output / "stack.zarr/labels", mode="r")
    assert group.attrs["ome"]["labels"] == ["threshold", "threshold-objects"]
    of_objects = group["threshold-objects"]
    about = of_objects.attrs["ome"]["image-label"]
    assert "properties" not in about and about["source"] == {"image": "../../"}
    assert of_objects["0"].dtype == np.uint32
    assert len(group["threshold"].attrs["ome"]["image-label"]["properties"]) == len(CLASSES)
    shown = describe(str(output))
    assert shown["label_images"] == ["threshold", "threshold-objects"]
    assert shown["objects"] == ("left", "wall")


def test_damaged_objects_are_found(whole: Path, tmp_path: Path) -> None:
    for how in ("changed", "gone", "metadata"):
        copy = shutil.copytree(whole, tmp_path / how)
        shard = next((copy / "stack.zarr/labels/threshold-objects/0/c").rglob("0"))
        shard = next(p for p in shard.parent.rglob("*") if p.is_file())
        if how == "changed":
            data = bytearray(shard.read_bytes())
            data[len(data) // 2] ^= 1
            shard.write_bytes(data)
        elif how == "gone":
            shard.unlink()
        else:
            (copy / "stack.zarr/labels/threshold-objects/zarr.json").unlink()
        found = list(verify_job(copy).problems.lines())
        assert any("threshold-objects" in line for line in found), how


@pytest.mark.parametrize("constants", [BLOCKS, REGIONS])
def test_stopped_and_resumed_it_ends_in_the_same_bytes(
    tmp_path: Path, stack: Path, constants: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in constants.items():
        monkeypatch.setattr(layout, name, value)
    model = class_model(tmp_path / "model.onnx")
    asked = {"objects": "left,right", "workers": 1}
    run_job(jobs.settings(stack, model, tmp_path / "a", **asked), executor=SerialExecutor())
    ran: Counter[tuple[str, int]] = Counter()
    for seed, stop in enumerate((1, 7, 5, None)):
        executor = jobs.Shuffled(seed, stop)
        with suppress(JobStopped):
            run_job(jobs.settings(stack, model, tmp_path / "b", **asked), executor=executor)
        ran.update(executor.tasks)
    assert set(ran.values()) == {1}
    assert jobs.contents(tmp_path / "a") == jobs.contents(tmp_path / "b")
    with pytest.raises(OutputError, match=r"objects were left, right and are left now"):
        run_job(jobs.settings(stack, model, tmp_path / "b", objects="left", workers=1))


@pytest.mark.parametrize("constants", [WHOLE, REGIONS])
def test_a_frame_set_aside_has_neither_and_is_repeated(
    tmp_path: Path, constants: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in constants.items():
        monkeypatch.setattr(layout, name, value)
    classes = random_classes((1, 3, 30, 40), 5, 2)[0]
    damaged = classes.astype(np.float32)
    damaged[1, 3, 4] = np.nan
    path = jobs.write_stack(tmp_path / "stack.tif", damaged)
    model = class_model(tmp_path / "model.onnx", name="threshold")
    asked = {"objects": "left,right,wall", "workers": 1}
    job = jobs.settings(path, model, tmp_path / "out", **asked)
    done = run_job(job, executor=SerialExecutor())
    assert (done.exit_status, done.frames_failed) == (1, 1)
    wanted = plain_objects(classes[:, None], (1, 2, 3))[:, 0]
    for image, right in zip(images(tmp_path / "out"), (classes, wanted), strict=True):
        assert not image[1].any()
        np.testing.assert_array_equal(image[::2], right[::2])
    assert not len(verify_job(tmp_path / "out").problems)
    jobs.write_stack(path, classes.astype(np.float32))
    again = run_job(job.model_copy(update={"retry_failed": True}), executor=SerialExecutor())
    assert (again.exit_status, again.objects) == (0, sum(int(plane.max()) for plane in wanted))
    for image, right in zip(images(tmp_path / "out"), (classes, wanted), strict=True):
        np.testing.assert_array_equal(image, right)
    assert not len(verify_job(tmp_path / "out").problems)


def test_others_read_the_objects_by_their_name(whole: Path, tmp_path: Path) -> None:
    (objects,) = open_result(whole, "threshold-objects")
    assert not objects.classes and objects.folder == whole
    (own,) = open_result(whole)
    assert [c.name for c in own.classes] == list(CLASSES)
    frames = open_labels(whole / "stack.zarr/labels/threshold-objects")
    assert frames.classes == () and len(frames.numbers) == 3
    (path,) = convert(whole, "tiff", tmp_path / "tiff", labels="threshold-objects")
    assert path.is_file()
    (csv,) = [p for p in convert(whole, "csv", tmp_path / "csv") if p.name == "objects.csv"]
    assert ",wall," in csv.read_text()
    pytest.importorskip("shapely")
    convert(whole, "geojson", tmp_path / "qupath", labels="threshold-objects")
    found = [json.loads(p.read_text()) for p in sorted((tmp_path / "qupath").rglob("*.geojson"))]
    names = Counter(
        f["properties"]["classification"]["name"] for one in found for f in one["features"]
    )
    rows = pq.read_table(whole / "objects.parquet")["class"].to_pylist()
    assert names == Counter(rows)
    with pytest.raises(OutputError, match="class map"):
        relabel(whole, "again", min_area=1)


def test_what_is_refused(tmp_path: Path, stack: Path, threshold_model: Path) -> None:
    model = class_model(tmp_path / "model.onnx")
    for given_model, asked, message in (
        (model, {"objects": "left,rigth"}, "has no class 'rigth'; it has left, right, wall"),
        (model, {"objects": "background"}, "has no class 'background'; it has left, right, wall"),
        (threshold_model, {"objects": "nucleus"}, "one class, nucleus, and gives its objects"),
        (model, {"objects": "left", "fill_holes": True}, "--fill-holes: objects of classes are"),
        (model, {"objects": "left", "instances": "none"}, "contradicts --instances none"),
        (model, {"objects": "left", "instances": "watershed"}, "has several classes"),
        (model, {"min_area": 3}, "which has no objects; choose some with --objects"),
    ):
        with pytest.raises(UsageError, match=message):
            prepare_job(jobs.settings(stack, given_model, tmp_path / "out", **asked))


def test_the_plan_counts_both_label_images(tmp_path: Path, stack: Path) -> None:
    model = class_model(tmp_path / "model.onnx")
    plain, both = (
        prepare_job(jobs.settings(stack, model, tmp_path / "out", workers=1, **asked)).plan
        for asked in ({}, {"objects": "left"})
    )
    pixels = 3 * 40 * 50
    assert both.disk_bytes - plain.disk_bytes >= pixels * 4 / 40
    # A block holds them as they are encoded, and a frame as they are.
    assert both.memory.block - plain.memory.block >= pixels * 4 / 4
    assert both.memory.frame - plain.memory.frame >= 40 * 50 * 4
    done = CliRunner().invoke(plan, [str(stack), "--model", str(model), "--objects", "wall"])
    assert "objects of wall beside it" in done.output
