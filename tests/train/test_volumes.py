"""Volumes of NIfTI, DICOM and TIFF as training data: planes, class numbers, patients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from engine.errors import StackError
from tests.stacks import dicoms
from tests.train.heart import acdc_colours, heart_settings, heart_slice
from tests.train.runs import silent
from train.data.dataset import find_frames, load_data, load_part
from train.fit import fit

DEPTH = 3
SHAPE = (40, 56)


def heart_volume(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Grey and class numbers, (Z, Y, X)."""
    slices = [heart_slice(10 * seed + z, SHAPE) for z in range(DEPTH)]
    return np.stack([grey for grey, _ in slices]), np.stack([classes for _, classes in slices])


def folders(root: Path) -> tuple[Path, Path]:
    images, masks = root / "images", root / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    return images, masks


def write_nifti(path: Path, pixels: NDArray[Any], shift: float = 0) -> None:
    nib = pytest.importorskip("nibabel")
    affine = np.diag([-1.5, -1.5, 8, 1])
    affine[0, 3] = shift
    nib.save(nib.Nifti1Image(pixels.T, affine), path)


def write_tiff(path: Path, pixels: NDArray[Any]) -> None:
    tifffile.imwrite(path, pixels, photometric="minisblack")


def write_series(folder: Path, pixels: NDArray[Any], uid: str) -> None:
    """A series whose files are named against the order of its slices."""
    folder.mkdir()
    for z, plane in enumerate(pixels):
        dicoms.write(
            folder / f"a{9 - z}.dcm", plane.astype(np.int16), SeriesInstanceUID=uid,
            ImagePositionPatient=[0, 0, 8 * z], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )  # fmt: skip


def test_planes_of_nifti_are_frames_and_their_numbers_classes(tmp_path: Path) -> None:
    images, masks = folders(tmp_path)
    for patient in range(4):
        grey, classes = heart_volume(patient)
        name = f"patient{patient}_ed.nii" + (".gz" if patient % 2 else "")
        write_nifti(images / name, grey.astype(np.int16) - 100)
        write_nifti(masks / name, classes.astype(np.float32 if patient == 2 else np.uint8))
    how = heart_settings(tmp_path, epochs=1, steps_per_epoch=1)
    sources = find_frames(how)
    assert [s.name for s in sources[: DEPTH + 1]] == [
        *(f"images/patient0_ed.nii[{z}]" for z in range(DEPTH)), "images/patient1_ed.nii.gz[0]"
    ]  # fmt: skip
    assert {s.group for s in sources} == {f"patient{n}" for n in range(4)}
    frames = load_part(sources, how).frames
    for patient in range(4):
        grey, classes = heart_volume(patient)
        for z, frame in enumerate(frames[DEPTH * patient :][:DEPTH]):
            assert np.array_equal(frame.image[0], grey[z].astype(int) - 100)
            assert np.array_equal(frame.labels, classes[z])
    best = fit(how, tmp_path / "run", note=silent)
    assert "val_mean_dice" in best.scores


def test_truth_of_nifti_that_does_not_fit(tmp_path: Path) -> None:
    images, masks = folders(tmp_path)
    grey, classes = heart_volume(0)
    write_nifti(images / "a.nii", grey)
    how = heart_settings(tmp_path)

    def refusal() -> str:
        with pytest.raises(StackError) as error:
            load_part(find_frames(how), how)
        return str(error.value)

    write_nifti(masks / "a.nii", classes, shift=4)
    assert "its affine is not that of" in refusal()
    write_nifti(masks / "a.nii", classes[:2])
    assert "holds 3 frames, but" in refusal()
    classes[1, 5, 7] = classes[1, 6, 2] = 9
    write_nifti(masks / "a.nii", classes)
    words = "class number 9 in 2 voxels of plane 1, the first at row 5, column 7"
    assert words in refusal() and "numbers 0 to 3" in refusal()
    (images / "a.nii").unlink()
    write_tiff(images / "a.tif", grey)
    assert "which way its axes point" in refusal()


def test_a_folder_of_one_series_is_a_volume(tmp_path: Path) -> None:
    """Sorted by position; its truth is a TIFF of class numbers, or of colours."""
    pytest.importorskip("pydicom")
    images, masks = folders(tmp_path)
    for patient in range(4):
        grey, classes = heart_volume(patient)
        write_series(images / f"patient{patient}", grey, f"1.2.{patient}")
        write_tiff(masks / f"patient{patient}.tif", classes)
    how = heart_settings(tmp_path)
    frames = load_part(find_frames(how)[:DEPTH], how).frames
    for z, frame in enumerate(frames):
        assert np.array_equal(frame.image[0], heart_volume(0)[0][z])
        assert np.array_equal(frame.labels, heart_volume(0)[1][z])
    split = load_data(how).split.as_json()
    assert not set(split["train"]["groups"]) & set(split["val"]["groups"])
    write_tiff(masks / "patient0.tif", heart_volume(0)[1].astype(np.uint8) * 80)
    with pytest.raises(StackError, match="that of no class"):
        load_part(find_frames(how)[:DEPTH], how)


def test_slices_of_one_series_stay_together_whatever_their_names(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    images, masks = folders(tmp_path)
    for number in range(6):
        grey, classes = heart_slice(number, SHAPE)
        uid = f"1.2.{number // 2}"
        dicoms.write(images / f"IM{number}.dcm", grey.astype(np.int16), SeriesInstanceUID=uid)
        mask = imagecodecs.png_encode(acdc_colours(classes))
        (masks / f"IM{number}.png").write_bytes(mask)
    groups = [s.group for s in find_frames(heart_settings(tmp_path))]
    assert groups == ["IM0", "IM0", "IM2", "IM2", "IM4", "IM4"]
    by_name = [s.group for s in find_frames(heart_settings(tmp_path, group=r"(IM\d)"))]
    assert by_name == [f"IM{n}" for n in range(6)]
