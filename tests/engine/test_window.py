"""A window of pixel values: what the network sees, and what stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from engine.errors import FrameError, OutputError, StackError
from engine.geometry import layout
from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.job.prepare import prepare_job
from engine.model.spec import Normalisation
from engine.model.statistics import windowed
from engine.plan.window import parse_window
from engine.results.inspection import describe
from engine.results.verify.run import verify_job
from engine.stacks.open import open_stack
from tests.conftest import make_threshold_model
from tests.engine import jobs
from tests.stacks.dicoms import write_series

pytest.importorskip("pydicom")
SHIFT = {"BitsStored": 12, "RescaleSlope": 1, "RescaleIntercept": -1024}
LEAST, MOST = 100.0, 900.0
FILE = {"WindowCenter": [500, 40], "WindowWidth": [800, 400]}  # of several the first counts
REGIONS = {"BLOCK_PIXELS": 600, "REGION": 32, "GRAIN": 8}


def test_values_beyond_a_window_become_its_ends() -> None:
    values = np.array([[-2000, 99, 100, 101, 3000]], np.int16)
    assert windowed(values, (99.6, 100.4)).tolist() == [[100, 100, 100, 100, 100]]
    assert windowed(values.astype(np.uint16), (-5, 200)).tolist() == [[200, 99, 100, 101, 200]]
    assert windowed(values.astype(np.uint8), (90, 1000)).dtype == np.uint8
    assert windowed(values.astype(np.float32), (99.5, 100.5)).tolist() == [
        [99.5, 99.5, 100, 100.5, 100.5]
    ]
    assert windowed(values, None) is values
    for bad in (np.nan, np.inf):  # what is no number stays an error
        with pytest.raises(FrameError, match="NaN or infinite"):
            windowed(np.array([[1, bad]], np.float32), (0, 1))


def test_windows_as_they_are_given() -> None:
    assert parse_window("-40.5,400") == (-40.5, 400)
    for wrong in ("40", "40,0", "40,-3", "40,nan", "a,b", "1,2,3", ""):
        with pytest.raises(ValueError, match="give CENTER,WIDTH"):
            parse_window(wrong)
    with pytest.raises(ValueError, match=r"has a width of 0; give CENTER,WIDTH with a width above"):
        parse_window("40,0")
    with pytest.raises(ValueError, match=r"such as 40,400, file or none$"):
        parse_window("files")
    with pytest.raises(ValueError, match="no width"):
        Normalisation(window=(3, 3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("window")


@pytest.fixture(scope="module")
def pixels() -> Any:
    return (jobs.blobs((3, 40, 50)) >> 4).astype("uint16")


@pytest.fixture(scope="module")
def series(folder: Path, pixels: Any) -> Path:
    return write_series(folder / "ct", pixels, **SHIFT, **FILE)


def run(folder: Path, stack: Path, name: str, model: Path | None = None, **changes: Any) -> Path:
    model = model or make_threshold_model(folder / "threshold.onnx")
    job = jobs.settings(stack, model, folder / name, workers=1, **changes)
    assert run_job(job, executor=SerialExecutor()).exit_status == 0
    return folder / name


@pytest.fixture(scope="module")
def output(folder: Path, series: Path) -> Path:
    return run(folder, series, "out", window="file", with_image=True)


def test_the_network_sees_the_window_and_measures_are_of_all_values(
    folder: Path, pixels: Any, output: Path
) -> None:
    values = pixels.astype(np.int16) - 1024
    assert values.max() > MOST and values.min() < LEAST
    zarr.save_array(folder / "plain.zarr", np.clip(values, LEAST, MOST).astype(np.int16))
    plain = run(folder, folder / "plain.zarr", "plain", axes="ZYX")
    found = jobs.labels_of(output, "ct")
    np.testing.assert_array_equal(found, jobs.labels_of(plain, "plain"))
    everything = run(folder, folder / "ct", "everything")
    assert not np.array_equal(found, jobs.labels_of(everything, "ct"))
    image = zarr.open_array(output / "ct.zarr/0", mode="r")[...]
    np.testing.assert_array_equal(image, values)
    for row in pq.read_table(output / "objects.parquet").to_pylist():
        inside = values[row["z"]][found[row["z"]] == row["label"]]
        assert row["max_intensity_0"] == inside.max()
    assert not len(verify_job(output).problems)


def test_it_is_on_record(folder: Path, series: Path, output: Path) -> None:
    group = zarr.open_group(output / "ct.zarr", mode="r")
    assert group.attrs["stackseg"]["window"] == [LEAST, MOST]
    assert describe(str(output))["stacks"][0]["window"] == [LEAST, MOST]
    assert describe(str(series))["window"] == {"center": 500, "width": 800}
    model = folder / "threshold.onnx"
    asked = {"window": "500,800", "with_image": True, "workers": 1}
    again = run_job(jobs.settings(series, model, output, **asked))
    assert again.already_complete  # the same window by another name
    with pytest.raises(OutputError, match=r"window was 100.0, 900.0 and is none now"):
        run_job(jobs.settings(series, model, output, with_image=True, workers=1))


def test_a_cut_frame_has_the_window_of_the_whole(
    folder: Path, series: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in REGIONS.items():
        monkeypatch.setattr(layout, name, value)
    cut = run(folder, series, "cut", window="500,800")
    np.testing.assert_array_equal(jobs.labels_of(cut, "ct"), jobs.labels_of(output, "ct"))


def test_a_model_brings_its_own(folder: Path, series: Path, tmp_path: Path) -> None:
    normalisation = Normalisation(window=(LEAST, MOST))
    model = make_threshold_model(tmp_path / "model.onnx", normalisation=normalisation)
    for asked, wanted in ((None, (LEAST, MOST)), ("none", None), ("0,10", (-5, 5))):
        job = prepare_job(jobs.settings(series, model, tmp_path / "out", window=asked))
        assert job.plan.stacks[0].window == wanted
    plain = prepare_job(jobs.settings(series, folder / "threshold.onnx", tmp_path / "out"))
    assert plain.plan.stacks[0].window is None


def test_a_window_that_is_not_there_is_refused(tmp_path: Path, pixels: Any) -> None:
    model = make_threshold_model(tmp_path / "model.onnx")
    mixed = write_series(tmp_path / "mixed", pixels[:2], **SHIFT, **FILE)
    write_series(mixed, pixels[2:], [5.0], ["c"], WindowCenter=1, WindowWidth=5, **SHIFT)
    tiff = jobs.write_stack(tmp_path / "a.tif", pixels)
    for path in (mixed, tiff):
        with pytest.raises(StackError, match=r"tells no window that all of its frames share"):
            prepare_job(jobs.settings(path, model, tmp_path / "out", window="file"))
    white = {"PhotometricInterpretation": "MONOCHROME1"}
    inverted = write_series(tmp_path / "white", pixels, **SHIFT, **FILE, **white)
    assert open_stack(str(inverted)).info.window is None


@pytest.mark.realdata
def test_a_real_ct_tells_its_window(realdata: Path) -> None:
    import pydicom

    tried = 0
    for path in sorted((realdata / "dicom").rglob("*")):
        if tried >= 2 or not path.is_file():
            continue
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            wanted = (header.WindowCenter, header.WindowWidth)
            if header.Modality != "CT" or header.PhotometricInterpretation != "MONOCHROME2":
                continue
            found = open_stack(str(path)).info.window
        except (AttributeError, StackError, pydicom.errors.InvalidDicomError):
            continue
        first = [float(v[0] if hasattr(v, "__len__") else v) for v in wanted]
        assert found is None if first[1] <= 0 else found == tuple(first), path
        tried += 1
    assert tried
