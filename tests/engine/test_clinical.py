"""DICOM and NIfTI from one end to the other: a job, its results, and what must not be in them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from engine.errors import OutputError, StackError
from engine.job.job import run_job
from engine.job.prepare import prepare_job
from engine.job.progress import Progress
from engine.results.inspection import describe
from engine.results.verify.run import verify_job
from tests.engine.jobs import blobs, labels_of, settings
from tests.stacks.dicoms import PATIENT, SERIES, volume, write_series

pytest.importorskip("pydicom")
nib = pytest.importorskip("nibabel")


def heads(n: int) -> np.ndarray[Any, Any]:
    """Slices of a CT as stored: 12 bits."""
    return (blobs((n, 48, 40)) >> 4).astype("uint16")


HOUNSFIELD = {"BitsStored": 12, "RescaleSlope": 1, "RescaleIntercept": -1024}


def test_a_series_is_segmented_as_its_volume(tmp_path: Path, threshold_model: Path) -> None:
    pixels = heads(5)
    folder = write_series(tmp_path / "ct", pixels, **HOUNSFIELD)
    zarr.save_array(tmp_path / "plain.zarr", pixels.astype("int16") - 1024)
    job = settings(folder, threshold_model, tmp_path / "out", with_image=True)
    assert run_job(job, Progress()).exit_status == 0
    plain = settings(tmp_path / "plain.zarr", threshold_model, tmp_path / "plain", axes="ZYX")
    assert run_job(plain, Progress()).exit_status == 0
    labels = labels_of(tmp_path / "out", "ct")
    assert labels.max() > 3
    np.testing.assert_array_equal(labels, labels_of(tmp_path / "plain", "plain"))
    image = zarr.open_array(tmp_path / "out/ct.zarr/0", mode="r")[...]
    np.testing.assert_array_equal(image, pixels.astype("int16") - 1024)
    assert not verify_job(tmp_path / "out").problems
    frames = pq.read_table(tmp_path / "out/frames.parquet").to_pydict()
    assert frames["z"] == list(range(5))


def everything(folder: Path) -> bytes:
    """All bytes of a folder and of its file names, tables unpacked."""
    parts = []
    for path in sorted(folder.rglob("*")):
        parts.append(str(path.relative_to(folder)).encode())
        if path.is_file():
            parts.append(path.read_bytes())
        if path.suffix == ".parquet":
            parts.append(str(pq.read_table(path).to_pydict()).encode())
            parts.append(str(pq.read_schema(path).metadata).encode())
    return b"\n".join(parts)


def test_nothing_of_a_patient_is_in_a_result(tmp_path: Path, threshold_model: Path) -> None:
    from pydicom.uid import generate_uid

    names = [f"{generate_uid()}.dcm" for _ in range(4)]
    folder = write_series(tmp_path / "case-12", heads(4), names=names, **HOUNSFIELD)
    write_series(folder, volume(1), names=["scout"], SeriesInstanceUID=f"{SERIES}.5")
    broken = folder / names[2]
    broken.write_bytes(broken.read_bytes()[:-100])  # named in failures.json
    job = settings(folder, threshold_model, tmp_path / "out", series="all", with_image=True)
    summary = run_job(job, Progress())
    assert (summary.exit_status, summary.frames_failed) == (1, 1)
    found = everything(tmp_path / "out")
    assert b"case-12" in found
    assert b"is truncated" in found
    for secret in (*PATIENT.values(), SERIES, *names, "Doe", "Quincy"):
        assert secret.encode() not in found, secret


def test_identifiers_are_kept_where_they_are_asked_for(
    tmp_path: Path, threshold_model: Path
) -> None:
    folder = write_series(tmp_path / "case-12", heads(3), **HOUNSFIELD)
    job = settings(folder, threshold_model, tmp_path / "out", keep_identifiers=True)
    assert run_job(job, Progress()).exit_status == 0
    kept = {key: PATIENT[key] for key in ("PatientID", "StudyInstanceUID")}
    kept["SeriesInstanceUID"] = SERIES
    group = zarr.open_group(tmp_path / "out/case-12.zarr", mode="r")
    assert group.attrs["stackseg"]["identifiers"] == kept
    assert describe(str(tmp_path / "out"))["stacks"][0]["identifiers"] == kept
    assert json.loads((tmp_path / "out/job.json").read_text())["inputs"][0]["identifiers"] == kept
    found = everything(tmp_path / "out")
    for keyword, value in PATIENT.items():  # the name and all else stay out
        assert (value.encode() in found) == (keyword in kept), keyword
    assert not verify_job(tmp_path / "out").problems
    with pytest.raises(OutputError, match="identifiers of patients are kept now") as refused:
        run_job(settings(folder, threshold_model, tmp_path / "out"), Progress())
    assert PATIENT["PatientID"] not in str(refused.value)
    extra = volume(1, (48, 40), "uint16")
    write_series(folder, extra, [7.5], ["more"], PatientID="MRN-2", **HOUNSFIELD)
    with pytest.raises(StackError, match="its files differ in PatientID") as refused:
        prepare_job(job.model_copy(update={"output": tmp_path / "other"}))
    assert "MRN" not in str(refused.value)


def test_a_gap_is_refused_until_frames_leave_it_out(tmp_path: Path, threshold_model: Path) -> None:
    folder = write_series(tmp_path / "ct", heads(5), [0, 2, 4, 8, 10])
    job = settings(folder, threshold_model, tmp_path / "out")
    with pytest.raises(StackError, match=r"of 6 slices, 1 is missing .*1 between 4.00 and 8.00 mm"):
        prepare_job(job)
    some = settings(folder, threshold_model, tmp_path / "out", frames=(0, 3))
    assert run_job(some, Progress()).exit_status == 0


def test_a_nifti_is_segmented_as_its_volume(tmp_path: Path, threshold_model: Path) -> None:
    pixels = heads(4)
    image = nib.Nifti1Image(pixels.T, np.diag([0.5, 0.7, 3, 1]))
    labels = []
    for name in ("a.nii", "b.nii.gz"):
        nib.save(image, tmp_path / name)
        job = settings(tmp_path / name, threshold_model, tmp_path / f"out-{name}")
        assert run_job(job, Progress()).exit_status == 0
        labels.append(labels_of(tmp_path / f"out-{name}", name.partition(".")[0]))
    zarr.save_array(tmp_path / "plain.zarr", pixels)
    plain = settings(tmp_path / "plain.zarr", threshold_model, tmp_path / "plain", axes="ZYX")
    assert run_job(plain, Progress()).exit_status == 0
    for one in labels:
        np.testing.assert_array_equal(one, labels_of(tmp_path / "plain", "plain"))


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "dicomdirtests/98892001/CT5N"])
def test_a_real_one_with_the_bundled_model(realdata: Path, tmp_path: Path, name: str) -> None:
    path = realdata / "dicom" / name
    assert describe(str(path))["format"] == "DICOM"
    job = settings(path, Path("nuclei"), tmp_path / "out")
    assert prepare_job(job).plan.n_frames in (1, 5)
    assert run_job(job, Progress()).exit_status == 0
    assert not verify_job(tmp_path / "out").problems
    found = everything(tmp_path / "out")
    for secret in (b"CompressedSamples", b"1.3.6.1.4.1.5962", b"Doe^", b"98890234"):
        assert secret not in found


def test_a_missing_extra_is_one_sentence(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", volume(1), names=["a.dcm"])
    nib.save(nib.Nifti1Image(volume(2).T, np.eye(4)), tmp_path / "a.nii")
    for library, path, extra in (
        ("pydicom", tmp_path / "ct/a.dcm", "dicom"),
        ("pydicom", tmp_path / "ct", "dicom"),
        ("nibabel", tmp_path / "a.nii", "nifti"),
    ):
        code = (
            f"import sys; sys.modules[{library!r}] = None\n"
            "from engine.cli import main\n"
            f"sys.argv = ['stackseg', 'inspect', {str(path)!r}]\n"
            "main()"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert f"pip install '.[{extra}]'" in done.stderr


def test_other_inputs_load_neither_library(tmp_path: Path) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", volume(1)[0])
    code = (
        "import sys\nfrom engine.stacks.open import open_stack\n"
        f"open_stack({str(tmp_path / 'a.tif')!r}).close()\n"
        f"open_stack({str(tmp_path)!r}).close()\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pydicom", "nibabel", "pylibjpeg"} & set(done.stdout.split())
