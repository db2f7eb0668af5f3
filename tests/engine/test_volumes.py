"""Volumes of classes, in ml, by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.measure.volumes import Volumes, voxel_ml
from engine.results.inspection import describe
from engine.results.verify.run import verify_job
from engine.store.folder import JobFolder
from tests.engine import jobs
from tests.engine.test_class_objects import class_model, random_classes
from tests.results import make_result

UM = {"X": 500.0, "Y": 250.0, "Z": 4000.0}
VOXEL = 0.5e-3  # ml: 0.5 x 0.25 x 4 mm


def write(path: Path, data: np.ndarray, sizes: dict[str, float]) -> Path:
    metadata = {f"PhysicalSize{axis}": um for axis, um in sizes.items()}
    tifffile.imwrite(path, data, ome=True, metadata={"axes": "TZYX", **metadata})
    return path


def test_voxels_of_known_size_are_volumes(tmp_path: Path) -> None:
    classes = random_classes((2, 3, 30, 40), 7, 2)
    known = write(tmp_path / "known.ome.tif", classes, UM)
    flat = {axis: UM[axis] for axis in "XY"}
    unknown = write(tmp_path / "unknown.ome.tif", classes[:1], flat)
    model = class_model(tmp_path / "model.onnx")
    job = jobs.settings([known, unknown], model, tmp_path / "out", workers=1)
    assert run_job(job, executor=SerialExecutor()).exit_status == 0
    rows = pq.read_table(tmp_path / "out/volumes.parquet").to_pylist()
    by_place = {(row["stack"], row["t"], row["class"]): row for row in rows}
    assert len(by_place) == len(rows) == 2 * 3 + 3
    for (stack, t, name), row in by_place.items():
        count = int((classes[t] == ("background", "left", "right", "wall").index(name)).sum())
        ml = count * VOXEL if stack == "known" else None
        assert (row["voxels"], row["frames_failed"]) == (count, 0)
        assert row["volume_ml"] == (None if ml is None else pytest.approx(ml, rel=1e-12))
    with (tmp_path / "out/volumes.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["volume_ml"] or 0) for line in lines] == [r["volume_ml"] or 0 for r in rows]
    report = JobFolder(tmp_path / "out").report()
    assert report is not None
    first, second = report.inputs
    assert first.volumes_ml["left"] == tuple(
        by_place["known", t, "left"]["volume_ml"] for t in (0, 1)
    )
    assert not second.volumes_ml
    assert set(describe(str(tmp_path / "out"))["stacks"][0]["volumes_ml"]) == {
        "left", "right", "wall",
    }  # fmt: skip
    (tmp_path / "out/volumes.csv").write_text("stack\n")
    assert any("volumes.csv" in line for line in verify_job(tmp_path / "out").problems.lines())


def test_objects_of_a_binary_model_have_one_as_well(tmp_path: Path) -> None:
    data = jobs.blobs((1, 3, 40, 50))
    output = make_result(tmp_path, [write(tmp_path / "v.ome.tif", data, UM)], min_area=20)
    (row,) = pq.read_table(output / "volumes.parquet").to_pylist()
    labels = jobs.labels_of(output, "v")
    assert (row["class"], row["voxels"]) == ("nucleus", int((labels > 0).sum()))
    assert row["volume_ml"] == pytest.approx(row["voxels"] * VOXEL)


def test_a_plane_that_was_set_aside_leaves_no_volume() -> None:
    volumes = Volumes(("background", "a"), 200, voxel_ml(UM))
    volumes.add(3, {"foreground_fraction": 0.5, "fraction_a": 0.25})
    volumes.add(3, None)
    volumes.add(4, {"foreground_fraction": 0.5, "fraction_a": 0.25})
    (lost, whole) = volumes.rows("s")
    assert (lost["voxels"], lost["volume_ml"], lost["frames_failed"]) == (50, None, 1)
    assert whole["volume_ml"] == pytest.approx(50 * VOXEL)
    assert voxel_ml({"Y": 1.0, "X": 1.0}) is None
