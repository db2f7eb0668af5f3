"""DICOM segmentations and NIfTI volumes, read by highdicom and nibabel, at the source's place."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from click.testing import CliRunner

from engine.commands.convert import convert as command
from engine.errors import MissingExtra, StackError, UsageError
from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.results.convert.run import convert
from engine.truth.palette import read_palette
from tests import networks, results
from tests.conftest import make_threshold_model
from tests.engine import jobs
from tests.stacks import dicoms

hd = pytest.importorskip("highdicom")
nib = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")

CLASSES = ("background", "left ventricle", "odd rim")
OBLIQUE = [0.8, 0.6, 0.0, 0.0, 0.0, -1.0]  # of rows and of columns
SPACING, STEP = [0.7, 0.5], 2.5  # mm


def classes_model(folder: Path) -> Path:
    network = networks.unet((4, 4), n_outputs=3, positive=False, seed=35)
    return networks.save(folder / "c.onnx", network, networks.spec(network, classes=CLASSES))


def run(source: Path, model: Path, output: Path, **changes: Any) -> Path:
    settings = jobs.settings(source, model, output, workers=1, **changes)
    assert run_job(settings, executor=SerialExecutor()).exit_status == 0
    return output


def oblique_series(folder: Path, n: int = 4) -> Path:
    """Slices along an oblique normal, under names in another order."""
    from pydicom.uid import generate_uid

    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    pixels = (jobs.blobs((n, 40, 48)) >> 4).astype(np.uint16)
    folder.mkdir()
    frame_of_reference = generate_uid()
    for i in range(n):
        dicoms.write(
            folder / f"IM{(3 * i + 1) % 5}", pixels[i], InstanceNumber=i + 1, BitsStored=12,
            HighBit=11, ImagePositionPatient=[float(v) for v in [10, -20, 30] + STEP * i * normal],
            ImageOrientationPatient=OBLIQUE, PixelSpacing=SPACING, SliceThickness=STEP,
            FrameOfReferenceUID=frame_of_reference, StudyTime="101010", StudyID="1",
            PatientSex="F", AccessionNumber="A1", ReferringPhysicianName="X",
            PositionReferenceIndicator="",
        )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def oblique(tmp_path_factory):
    """The folder of a job over an oblique series, three classes; with chosen labels, 1 and 2."""
    place = tmp_path_factory.mktemp("oblique")
    series = oblique_series(place / "heart")
    out = run(series, classes_model(place), place / "out")
    labels = np.random.default_rng(0).integers(0, 3, (4, 40, 48)).astype(np.uint8)
    labels[2] = 0  # a plane without any
    zarr.open_array(out / "heart.zarr/labels/test/0", mode="r+")[...] = labels
    return series, out, labels


def sources(folder: Path) -> list[Any]:
    """Headers by position along the normal."""
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    found = [pydicom.dcmread(path) for path in folder.iterdir()]
    return sorted(found, key=lambda ds: np.dot(normal, ds.ImagePositionPatient))


def test_a_segmentation_overlays_its_series_exactly(oblique, tmp_path):
    series, out, labels = oblique
    (path,) = convert(out, "dicom-seg", tmp_path)
    assert path.name == "heart.seg.dcm"
    seg = hd.seg.segread(path)
    images = sources(series)
    assert seg.PatientID == images[0].PatientID
    assert seg.StudyInstanceUID == images[0].StudyInstanceUID
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == images[0].SeriesInstanceUID
    named = {one.ReferencedSOPInstanceUID for one in referenced.ReferencedInstanceSequence}
    assert named == {image.SOPInstanceUID for image in images}
    pixels = seg.get_pixels_by_source_instance(
        [image.SOPInstanceUID for image in images], combine_segments=True,
        assert_missing_frames_are_empty=True,
    )  # fmt: skip
    np.testing.assert_array_equal(pixels, labels)
    # By place in the patient alone, without what the frames refer to.
    volume = seg.get_volume(combine_segments=True, allow_missing_positions=True)
    whole = hd.get_volume_from_series(images)
    moved = volume.match_geometry(whole)
    np.testing.assert_allclose(moved.affine, whole.affine, atol=1e-6)
    corners = np.array([image.ImagePositionPatient for image in images], float)
    for k, plane in enumerate(moved.array):  # in whichever order highdicom has them
        apart = np.linalg.norm(corners - (whole.affine @ [k, 0, 0, 1])[:3], axis=1)
        assert apart.min() < 1e-6
        np.testing.assert_array_equal(plane, labels[apart.argmin()])
    for frame in seg.PerFrameFunctionalGroupsSequence:
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        (image,) = [i for i in images if i.SOPInstanceUID == source.ReferencedSOPInstanceUID]
        np.testing.assert_allclose(position, image.ImagePositionPatient, atol=1e-6)


def test_segments_are_classes_with_name_colour_and_code(oblique, tmp_path):
    _, out, _ = oblique
    (path,) = convert(out, "dicom-seg", tmp_path)
    first, second = (hd.seg.segread(path).get_segment_description(n) for n in (1, 2))
    assert (first.segment_label, second.segment_label) == CLASSES[1:]
    assert first.segmented_property_type == hd.sr.CodedConcept("87878005", "SCT", "Left ventricle")
    assert second.segmented_property_type.scheme_designator == "99STACKSEG"
    red, green, _ = hd.color.CIELabColor.from_dicom_value(
        first.RecommendedDisplayCIELabValue
    ).to_rgb()
    assert red > 240 and green < 20
    assert first.algorithm_type.value == "AUTOMATIC"


def test_structures_have_the_codes_of_snomed():
    from pydicom.sr.codedict import codes

    from engine.results.convert.dicom_seg import _STRUCTURES

    for name, (value, meaning) in _STRUCTURES.items():
        if name != "myocardium":  # pydicom has that of the left ventricle only
            code = getattr(codes.SCT, name.title().replace(" ", ""))
            assert (code.value, code.meaning) == (value, meaning)
    for palette in ("acdc", "heart-ct"):
        assert set(read_palette(palette).names[1:]) <= set(_STRUCTURES)


def test_some_frames_of_objects_and_none_at_all(oblique, tmp_path, caplog):
    """Objects are one segment; frames that were not segmented are not there; empty is valid."""
    series, _, _ = oblique
    caplog.set_level("INFO")
    out = run(series, make_threshold_model(tmp_path / "t.onnx"), tmp_path / "out", frames=(1, 3))
    (path,) = convert(out, "dicom-seg", tmp_path / "a")
    labels = jobs.labels_of(out, "heart")
    uids = [image.SOPInstanceUID for image in sources(series)[1:3]]
    seg = hd.seg.segread(path)
    found = seg.get_pixels_by_source_instance(uids, segment_numbers=[1])[..., 0]
    np.testing.assert_array_equal(found, labels > 0)
    assert "its objects are one segment, nucleus" in caplog.text
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.open_array(out / "heart.zarr/labels/threshold/0", mode="r+")[...] = 0
    caplog.clear()
    (path,) = convert(out, "dicom-seg", tmp_path / "b")
    assert "heart: none of its pixels is labelled; the segmentation is empty" in caplog.messages
    warned = [one.name for one in caplog.records if one.levelname == "WARNING"]
    assert warned == ["stackseg"]
    empty = hd.seg.segread(path)
    assert not empty.pixel_array.any() and len(empty.SegmentSequence) == 1


def test_a_multi_frame_image_is_one_source(oblique, tmp_path):
    series, _, _ = oblique
    images = sources(series)
    for image in images:
        image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.ContentDate, image.ContentTime = "20200101", "101010"
        image.LossyImageCompression = "00"
    enhanced = hd.legacy.LegacyConvertedEnhancedCTImage(
        images, series_instance_uid=hd.UID(), series_number=1, sop_instance_uid=hd.UID(),
        instance_number=1,
    )  # fmt: skip
    enhanced.save_as(tmp_path / "multi.dcm")
    out = run(tmp_path / "multi.dcm", classes_model(tmp_path), tmp_path / "out", frames=(1, 3))
    labels = jobs.labels_of(out, "multi", "test")
    (path,) = convert(out, "dicom-seg", tmp_path / "seg")
    seg = hd.seg.segread(path)
    found = seg.get_pixels_by_source_frame(
        enhanced.SOPInstanceUID, [1, 2, 3, 4], combine_segments=True,
        assert_missing_frames_are_empty=True,
    )  # fmt: skip
    at = [f.PlanePositionSequence[0].ImagePositionPatient
          for f in enhanced.PerFrameFunctionalGroupsSequence]  # fmt: skip
    found = found[np.argsort(np.array(at, float) @ np.cross(OBLIQUE[:3], OBLIQUE[3:]))]
    assert labels.any() and not found[[0, 3]].any()
    np.testing.assert_array_equal(found[1:3], labels)
    (volume,) = convert(out, "nifti", tmp_path / "nii")
    position = hd.spatial.map_pixel_into_coordinate_system(
        (0, 0), images[1].ImagePositionPatient, OBLIQUE, SPACING
    )  # fmt: skip
    np.testing.assert_allclose(
        nib.load(volume).affine[:3, 3], np.multiply(position, [-1, -1, 1]), atol=1e-4
    )


def test_nifti_of_a_series_lies_where_it_does(oblique, tmp_path):
    series, out, labels = oblique
    (path,) = convert(out, "nifti", tmp_path)
    assert path.name == "heart.nii.gz"
    image = nib.load(path)
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, labels)
    for z, source in enumerate(sources(series)):
        mapped = hd.spatial.map_pixel_into_coordinate_system(
            (5, 7), source.ImagePositionPatient, OBLIQUE, SPACING
        )  # of column 5, row 7
        expected = np.multiply(mapped, [-1, -1, 1])
        np.testing.assert_allclose(image.affine @ [5, 7, z, 1], [*expected, 1], atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm" and image.header["qform_code"] == 1


@pytest.mark.parametrize("sheared", [False, True])
def test_nifti_has_the_affine_of_its_source(tmp_path, sheared):
    affine = nib.affines.from_matvec(np.diag([0.5, -0.7, 3]), [10, 20, -30])
    affine[0, 2] = 0.4 * sheared
    pixels = (jobs.blobs((5, 40, 36)) >> 4).astype("int16")
    nib.save(nib.Nifti1Image(pixels.T, affine), tmp_path / "a.nii.gz")
    out = run(tmp_path / "a.nii.gz", make_threshold_model(tmp_path / "m.onnx"), tmp_path / "out",
              frames=(1, 4))  # fmt: skip
    (path,) = convert(out, "nifti", tmp_path / "nii")
    image, labels = nib.load(path), jobs.labels_of(out, "a")
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, labels)
    assert image.get_data_dtype() == np.uint16
    shift = nib.affines.from_matvec(np.eye(3), [0, 0, 1])
    np.testing.assert_allclose(image.affine, affine @ shift, atol=1e-4)
    assert path.read_bytes() == convert(out, "nifti", tmp_path / "again")[0].read_bytes()
    nib.save(nib.Nifti1Image(pixels.T + 1, affine), tmp_path / "a.nii.gz")
    with pytest.raises(StackError, match=r"a.nii.gz: has changed since a was segmented"):
        convert(out, "nifti", tmp_path / "late")
    (tmp_path / "a.nii.gz").unlink()
    with pytest.raises(StackError, match=r"cannot be read again .*does not exist"):
        convert(out, "nifti", tmp_path / "late")
    assert not (tmp_path / "late").exists()


def test_nifti_of_other_sources_has_their_pixel_sizes(tmp_path):
    stack = results.write_ome(tmp_path / "four.ome.tif", jobs.blobs((2, 3, 40, 48)), "TZYX")
    out = results.make_result(tmp_path, [stack])
    (path,) = convert(out, "nifti", tmp_path / "nii")
    image = nib.load(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, jobs.labels_of(out, "four"))
    mm = results.PIXEL / 1000
    np.testing.assert_allclose(np.diag(image.affine), [mm, mm, 1, 1], rtol=1e-5)
    assert image.header.get_zooms()[3] == results.STEP
    with pytest.raises(UsageError, match=r"four.zarr: comes from OME-TIFF.*--to nifti"):
        convert(out, "dicom-seg", tmp_path / "seg")


def test_headers_that_a_segmentation_needs_are_missed_in_one_sentence(tmp_path):
    bare = dicoms.write(tmp_path / "bare.dcm", (jobs.blobs((40, 48)) >> 4).astype(np.uint16))
    out = run(bare, make_threshold_model(tmp_path / "m.onnx"), tmp_path / "out")
    done = CliRunner().invoke(
        command, [str(out), "--to", "dicom-seg", "--output", str(tmp_path / "seg")]
    )
    assert isinstance(done.exception, StackError)
    assert "cannot be written as DICOM SEG" in str(done.exception)
    assert "attribute" not in str(done.exception)
    assert not list((tmp_path / "seg").glob("*"))


def test_images_without_elements_of_a_patient_are_enough(tmp_path):
    """Anonymising may delete what DICOM only wants empty."""
    series = oblique_series(tmp_path / "heart")
    for path in series.iterdir():
        image = pydicom.dcmread(path)
        for name in ("PatientName", "PatientID", "PatientSex", "StudyTime", "AccessionNumber"):
            if name in image:
                delattr(image, name)
        image.save_as(path)
    out = run(series, classes_model(tmp_path), tmp_path / "out")
    (path,) = convert(out, "dicom-seg", tmp_path / "seg")
    seg = hd.seg.segread(path)
    assert (seg.PatientName, seg.PatientID, seg.StudyTime) == ("", "", "")
    assert seg.StudyInstanceUID == image.StudyInstanceUID


def test_missing_libraries_are_one_sentence(oblique, tmp_path, monkeypatch):
    _, out, _ = oblique
    for library, to, extra in (("highdicom", "dicom-seg", "dicom"), ("nibabel", "nifti", "nifti")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, library, None)
            for name in [m for m in sys.modules if m.startswith(("nibabel.", "highdicom."))]:
                patch.setitem(sys.modules, name, None)
            for module in ("dicom_seg", "nifti"):
                patch.delitem(sys.modules, f"engine.results.convert.{module}", raising=False)
            with pytest.raises(MissingExtra, match=rf"pip install '\.\[{extra}\]' in stackseg"):
                convert(out, to, tmp_path / "o")


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "dicomdirtests/98892001/CT5N"])
def test_real_images_there_and_back(realdata, tmp_path, name):
    source = realdata / "dicom" / name
    out = run(source, classes_model(tmp_path), tmp_path / "out")
    labels = jobs.labels_of(out, Path(name).stem, "test")
    labels = labels.reshape(-1, *labels.shape[-2:])
    assert np.unique(labels).size > 1
    (path,) = convert(out, "dicom-seg", tmp_path / "seg")
    seg = hd.seg.segread(path)
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    images = [pydicom.dcmread(file) for file in files]
    normal = np.cross(*np.reshape(images[0].ImageOrientationPatient, (2, 3)))
    images.sort(key=lambda ds: np.dot(normal, ds.ImagePositionPatient))
    found = seg.get_pixels_by_source_instance(
        [image.SOPInstanceUID for image in images], combine_segments=True,
        assert_missing_frames_are_empty=True,
    )  # fmt: skip
    np.testing.assert_array_equal(found, labels)
    assert seg.FrameOfReferenceUID == images[0].FrameOfReferenceUID
    (volume,) = convert(out, "nifti", tmp_path / "nii")
    np.testing.assert_array_equal(np.asarray(nib.load(volume).dataobj).T, labels)
