"""Pixels of 32 and 64 bits: measured as they are, to the last bit; the network sees float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr

from engine.errors import StackError
from engine.geometry import layout
from engine.job.job import run_job
from engine.job.relabel import relabel
from engine.model.spec import Normalisation
from engine.results.verify.run import verify_job
from tests import networks
from tests.conftest import make_threshold_model
from tests.engine import jobs
from tests.engine.jobs import labels_of
from tests.engine.test_cut import REGIONS, WHOLE

LIMIT = 2**53  # of what a double holds to the last bit


def pixels(dtype: str) -> np.ndarray:
    """Frames (T, C, Y, X) over nearly the whole range of a type, but no sum beyond LIMIT."""
    rng = np.random.default_rng(5)
    data = jobs.blobs((2, 2, 90, 130)).astype(np.int64)
    wide = data * 2**16 + rng.integers(0, 2**16, data.shape)  # 0 .. 2**32, no low bits are 0
    if dtype == "int32":
        wide -= 2**31
    if dtype in ("int64", "uint64"):
        wide *= 2**6
        wide += rng.integers(0, 2**6, data.shape)
    return wide.astype(dtype)


def write(path: Path, data: np.ndarray, kind: str) -> Path:
    if kind == "tiff":
        tifffile.imwrite(path / "s.ome.tif", data, metadata={"axes": "TCYX"}, tile=(32, 32),
                         photometric="minisblack")  # fmt: skip
        return path / "s.ome.tif"
    zarr.create_array(
        path / "s.zarr", data=data, chunks=(1, 1, 40, 40), dimension_names=["t", "c", "y", "x"]
    )
    return path / "s.zarr"


@pytest.mark.parametrize("constants", [WHOLE, REGIONS], ids=["whole", "cut"])
@pytest.mark.parametrize(
    ("dtype", "kind"),
    [("uint32", "tiff"), ("int32", "zarr"), ("uint32", "zarr"), ("int32", "tiff"),
     ("int64", "zarr"), ("uint64", "zarr")],
)  # fmt: skip
def test_measures_are_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold_model: Path, dtype: str, kind: str,
    constants: dict[str, int],
) -> None:  # fmt: skip
    for name, value in constants.items():
        monkeypatch.setattr(layout, name, value)
    data, output = pixels(dtype), tmp_path / "out"
    stack = write(tmp_path, data, kind)
    job = jobs.settings(
        stack, threshold_model, output, channel="0", with_image=True, keep="probability"
    )
    assert run_job(job).exit_status == 0
    labels = labels_of(output, "s")
    objects = pq.read_table(output / "objects.parquet").to_pylist()
    assert len(objects) > 3
    for one in objects:
        inside = labels[one["t"]] == one["label"]
        for c in range(2):
            values = [int(v) for v in data[one["t"], c][inside]]  # Python's integers: no rounding
            assert one[f"sum_intensity_{c}"] == sum(values) < LIMIT
            assert one[f"min_intensity_{c}"] == min(values)
            assert one[f"max_intensity_{c}"] == max(values)
            assert one[f"mean_intensity_{c}"] == sum(values) / len(values)
    for row in pq.read_table(output / "frames.parquet").to_pylist():
        inside, channel = labels[row["t"]] > 0, data[row["t"], 0]
        for name, where in (("objects", inside), ("background", ~inside)):
            total = sum(int(v) for v in channel[where])
            assert row[f"mean_intensity_{name}"] == total / int(where.sum())
    # What is kept of the image is the image; labels are those of the same pixels as float32.
    image = zarr.open_array(output / "s.zarr/0")
    assert image.dtype == dtype and np.array_equal(image[...], data)
    tifffile.imwrite(tmp_path / "float.ome.tif", data.astype(np.float32),
                     metadata={"axes": "TCYX"}, photometric="minisblack")  # fmt: skip
    same = jobs.settings(tmp_path / "float.ome.tif", threshold_model, tmp_path / "f", channel="0")
    run_job(same)
    assert np.array_equal(labels_of(tmp_path / "f", "float"), labels)
    assert verify_job(output).exit_status == 0


def test_measures_of_kept_pixels_are_exact(tmp_path: Path, threshold_model: Path) -> None:
    data, output = pixels("uint32")[:, :1], tmp_path / "out"
    stack = write(tmp_path, data, "tiff")
    run_job(jobs.settings(stack, threshold_model, output, with_image=True, keep="probability"))
    stack.unlink()
    assert relabel(output, "again", threshold=0.7).exit_status == 0
    labels = labels_of(output, "s", "again")
    for one in pq.read_table(output / "relabelled/again/objects.parquet").to_pylist():
        values = data[one["t"], 0][labels[one["t"]] == one["label"]].astype(np.int64)
        assert one["sum_intensity_0"] == values.sum()
        assert one["max_intensity_0"] == values.max()


def test_values_that_are_one_float32_are_a_blank_frame(tmp_path: Path) -> None:
    """The network sees no difference between them; without care it would divide by 0."""
    data = np.full((1, 64, 64), 2**31, np.uint32)
    data[0, :9, :9] += 1
    stack = jobs.write_stack(tmp_path / "s.tif", data)
    for policy in (Normalisation(), Normalisation(policy="range", low=0, high=10)):
        model = make_threshold_model(tmp_path / "threshold.onnx", normalisation=policy)
        output = tmp_path / policy.policy
        assert run_job(jobs.settings(stack, model, output)).exit_status == 0
        (row,) = pq.read_table(output / "frames.parquet").to_pylist()
        assert (row["status"], row["blank"], row["objects"]) == ("ok", True, 0)


def test_a_model_that_takes_no_float32_takes_none_of_them(tmp_path: Path) -> None:
    model = networks.threshold_model()
    spec = networks.spec(model, name="threshold", input_dtypes=("uint8", "uint16"))
    path = networks.save(tmp_path / "narrow.onnx", model, spec)
    stack = jobs.write_stack(tmp_path / "s.tif", jobs.blobs((1, 64, 64)).astype(np.uint32))
    with pytest.raises(StackError, match="has pixels of uint32, and threshold takes uint8, uint16"):
        run_job(jobs.settings(stack, path, tmp_path / "out"))
