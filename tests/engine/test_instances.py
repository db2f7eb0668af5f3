"""Jobs with rules of their own, over stacks of several channels: labels and tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr
from scipy import ndimage
from skimage.measure import regionprops

from engine.errors import OutputError
from engine.geometry import layout
from engine.job.job import run_job
from engine.labels.instances import label_instances
from engine.labels.postprocessing import Postprocessing
from engine.measure.objects import object_sums, objects_of
from engine.results.verify.run import verify_job
from tests import networks
from tests.conftest import make_core_model, make_threshold_model
from tests.engine import jobs
from tests.engine.jobs import labels_of
from tests.engine.test_cut import REGIONS, WHOLE, assert_rows_equal, tables
from tests.engine.test_stitch import whole_labels


def mask_of(frame: Any) -> Any:
    """What the threshold model makes of a frame."""
    low, high = np.percentile(frame, (1, 99.8), method="inverted_cdf").astype(np.float32)
    return (frame - low) / (high - low) >= 0.5


def calibrated(path: Path, data: Any, axes: str, **metadata: Any) -> Path:
    sizes = {f"PhysicalSize{a}": v for a, v in (("Y", 0.5), ("X", 0.25))}
    units = {f"PhysicalSize{a}Unit": "µm" for a in "YX"}
    tifffile.imwrite(path, data, metadata={"axes": axes, **sizes, **units, **metadata},
                     photometric="minisblack")  # fmt: skip
    return path


def test_a_job_over_stacks_of_several_channels(tmp_path: Path) -> None:
    model = make_threshold_model(tmp_path / "m.onnx")
    data = jobs.blobs((2, 2, 60, 70), seed=4)
    two = calibrated(tmp_path / "two.ome.tif", data, "TCYX", Channel={"Name": ["DNA", "actin"]})
    one = jobs.write_stack(tmp_path / "one.tif", data[:, 1])
    for name, stacks in (("both", [two, one]), ("same", [two])):
        asked = {"channel": "1" if name == "same" else "0", "fill_holes": True, "max_area": 900}
        output = tmp_path / name
        job = jobs.settings(stacks, model, output, instances="watershed", **asked)
        assert run_job(job).exit_status == (0)
        verdict = verify_job(output)
        assert not len(verdict.problems), [str(p) for p in verdict.problems]
    frames, objects = tables(tmp_path / "both")
    postprocessing = Postprocessing(0.5, 0, 900, "watershed", fill_holes=True)
    for stack, pixels in (("two", data), ("one", data[:, 1:])):
        for t, channels in enumerate(pixels):
            labels = label_instances(mask_of(channels[0]), postprocessing)
            assert labels.any()
            assert np.array_equal(labels_of(tmp_path / "both", stack)[t], labels)
            rows = [o for o in objects if (o["stack"], o["t"]) == (stack, t)]
            every = np.ones(labels.shape, np.float32)
            wanted = objects_of(object_sums(labels, dict(enumerate(channels)), every))
            for name, values in wanted.items():
                if name == "class":
                    assert (values == 1).all(), "the number of what the table names"
                elif name != "mean_probability":
                    assert [row[name] for row in rows] == values.tolist(), name
            for row in rows:
                assert row["class"] == "nucleus"
                known = stack == "two"
                assert row["area_um2"] == (row["area_px"] / 8 if known else None)
                assert row["centroid_y_um"] == (row["centroid_y_px"] * 0.5 if known else None)
                assert row["bbox_x1_um"] == (row["bbox_x1"] * 0.25 if known else None)
                assert (row["mean_intensity_1"] is None) == (not known)
            frame = next(f for f in frames if (f["stack"], f["t"]) == (stack, t))
            inside = channels[0][labels > 0]
            assert frame["mean_intensity_objects"] == pytest.approx(inside.mean())
    field = pq.read_schema(tmp_path / "both/objects.parquet").field("max_intensity_1")
    assert field.metadata[b"channel"] == b"actin" and field.metadata[b"unit"] == b"raw pixel value"
    # The frame's own intensities are those of the channel that the model takes.
    frames, _ = tables(tmp_path / "same")
    found = labels_of(tmp_path / "same", "two")
    for t, frame in enumerate(frames):
        inside = data[t, 1][found[t] > 0]
        assert frame["mean_intensity_objects"] == pytest.approx(inside.mean())


def test_rules_are_part_of_what_a_job_is(tmp_path: Path, threshold_model: Path) -> None:
    stack = calibrated(tmp_path / "s.ome.tif", jobs.blobs((2, 50, 60)), "TYX")
    job = jobs.settings(stack, threshold_model, tmp_path / "out", min_area="2um2")
    run_job(job)
    told = json.loads((tmp_path / "out/job.json").read_bytes())
    assert (
        told["settings"]["resolved"]["min_area"]
        == told["inputs"][0]["postprocessing"]["min_area"]
        == 16
    )
    metadata = json.loads((tmp_path / "out/s.zarr/zarr.json").read_bytes())
    assert metadata["attributes"]["stackseg"]["min_area"] == 16
    assert run_job(job.model_copy(update={"min_area": 16})).already_complete  # the same, in px
    for change in ({"clear_border": True}, {"max_area": 800}, {"instances": "watershed"},
                   {"fill_holes": True}, {"instances": "none", "min_area": None}):  # fmt: skip
        with pytest.raises(OutputError, match=next(iter(change)).replace("_", "-")):
            run_job(job.model_copy(update=change))
    model = make_core_model(tmp_path / "cores.onnx")
    job = jobs.settings(stack, model, tmp_path / "cores", growth=2)
    run_job(job)
    told = json.loads((tmp_path / "cores/job.json").read_bytes())["settings"]["resolved"]
    assert (told["core_threshold"], told["growth"], told["pinhole"]) == (0.5, 2, 3)
    assert run_job(job.model_copy(update={"core_threshold": 0.5})).already_complete
    for change, sentence in (
        ({"growth": 4}, "growth was 2 px and is 4 px now"),
        ({"unreached": "keep"}, "unreached was drop and is keep now"),
    ):
        with pytest.raises(OutputError, match=sentence):
            run_job(job.model_copy(update=change))


def test_a_class_map_where_no_instances_are_asked_for(
    tmp_path: Path, threshold_model: Path
) -> None:
    data = jobs.blobs((2, 50, 60))
    stack = jobs.write_stack(tmp_path / "s.tif", data)
    run_job(jobs.settings(stack, threshold_model, tmp_path / "out", instances="none"))
    found = labels_of(tmp_path / "out", "s")
    assert found.dtype == np.uint8
    assert np.array_equal(found, [mask_of(frame) for frame in data])
    assert not len(verify_job(tmp_path / "out").problems)


@pytest.mark.parametrize("constants", [WHOLE, REGIONS])
def test_a_model_with_cores_does_without_them(
    tmp_path: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch,
    constants: dict[str, int],
) -> None:  # fmt: skip
    """Objects, class map, measures and what is kept are then those of its foreground."""
    for key, value in constants.items():
        monkeypatch.setattr(layout, key, value)
    data = jobs.blobs((3, 50, 60))
    data[2] = 7  # blank
    stack = jobs.write_stack(tmp_path / "s.tif", data)
    with_cores = make_core_model(tmp_path / "cores.onnx")
    model = networks.threshold_model(0.4)
    plain = networks.save(tmp_path / "p.onnx", model, networks.spec(model, name="threshold"))
    for method in ("components", "none", *(["watershed"] if constants is WHOLE else [])):
        for name, path in (("plain", plain), ("cores", with_cores)):
            output = tmp_path / f"{name}-{method}"
            run_job(jobs.settings(stack, path, output, instances=method, keep="probability"))
            assert not len(verify_job(output).problems)
        one, other = (tmp_path / f"{name}-{method}" for name in ("plain", "cores"))
        assert np.array_equal(labels_of(one, "s"), labels_of(other, "s"))
        assert not labels_of(other, "s")[2].any() and labels_of(other, "s")[0].any()
        for found, wanted in zip(tables(other), tables(one), strict=True):
            assert_rows_equal(found, wanted)
        first, both = (
            zarr.open_array(output / "s.zarr/probability/threshold/0")[...]
            for output in (one, other)
        )
        assert np.array_equal(both[:, 0], first) and both.shape == (3, 2, 50, 60)
        assert not both[2].any()


def test_borders_and_areas_of_cut_frames_are_those_of_the_whole(
    tmp_path: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((2, 2, 90, 130)), axes="TCYX")
    asked = {"min_area": 20, "max_area": 1500, "clear_border": True, "channel": "1"}
    for name, constants in (("whole", WHOLE), ("cut", REGIONS)):
        for key, value in constants.items():
            monkeypatch.setattr(layout, key, value)
        run_job(jobs.settings(stack, threshold_model, tmp_path / name, **asked))
        assert not len(verify_job(tmp_path / name).problems)
    found, wanted = (labels_of(tmp_path / name, "stack") for name in ("cut", "whole"))
    assert wanted.max() > 5 and np.array_equal(found, wanted)
    for cut, whole in zip(tables(tmp_path / "cut"), tables(tmp_path / "whole"), strict=True):
        assert_rows_equal(cut, whole)
    for frame in wanted:
        assert not any(side.any() for side in (frame[0], frame[-1], frame[:, 0], frame[:, -1]))
        assert np.bincount(frame.ravel())[1:].max() <= 1500


@pytest.mark.parametrize("constants", [WHOLE, {"BLOCK_PIXELS": 3 * 48 * 50}, REGIONS])
def test_planes_that_connect_are_measured_plane_by_plane(
    tmp_path: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch,
    constants: dict[str, int],
) -> None:  # fmt: skip
    for key, value in constants.items():
        monkeypatch.setattr(layout, key, value)
    data = (60_000 * (jobs.blobs((8, 48, 50), seed=3) / 60_000) ** 2).astype(np.uint16)
    data[np.random.default_rng(3).random(data.shape) < 0.03] = 0  # holes
    stack = jobs.write_stack(tmp_path / "s.tif", data, axes="ZYX")
    fill = constants is not REGIONS
    asked = {"connect": "z", "clear_border": True, "max_area": 900, "fill_holes": fill}
    run_job(jobs.settings(stack, threshold_model, tmp_path / "out", **asked))
    masks = np.array([mask_of(frame) for frame in data])
    if fill:
        masks = np.array([ndimage.binary_fill_holes(mask) for mask in masks])
    wanted = whole_labels(masks, connect_z=True)
    area = np.bincount(wanted.ravel())
    sides = (wanted[:, 0], wanted[:, -1], wanted[:, :, 0], wanted[:, :, -1])
    drop = np.unique(np.concatenate([np.flatnonzero(area > 900), *(s.ravel() for s in sides)]))
    assert (area[drop] > 900).any() and (area[drop] <= 900).any()
    masks &= ~np.isin(wanted, drop)
    wanted = whole_labels(masks, connect_z=True)
    assert wanted.max() > 2
    assert np.array_equal(labels_of(tmp_path / "out", "s"), wanted)
    _, objects = tables(tmp_path / "out")
    for z, plane in enumerate(wanted):
        rows = {o["label"]: o for o in objects if o["z"] == z}
        props = regionprops(plane, data[z])
        assert len(rows) == len(props)
        for prop in props:
            row = rows[prop.label]
            assert (row["area_px"], row["solidity"]) == (prop.area, prop.solidity)
            assert row["eccentricity"] == pytest.approx(prop.eccentricity, abs=1e-6)
            assert row["max_intensity_0"] == prop.intensity_max
            assert row["centroid_x_px"] == pytest.approx(prop.centroid[1])
    assert not len(verify_job(tmp_path / "out").problems)
