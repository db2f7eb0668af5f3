"""DICOM: slices in the order of their positions, values of the modality, and nothing hidden."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import FrameError, StackError
from engine.measure.volumes import voxel_ml
from engine.stacks.open import open_stack, open_stacks
from tests.stacks.dicoms import PATIENT, SERIES, at, dataset, volume, write, write_series
from tests.stacks.frames import all_frames

pytest.importorskip("pydicom")


def refused(path: Path, says: str, **options: str) -> str:
    with pytest.raises(StackError, match=re.escape(says)) as caught:
        open_stack(str(path), **options)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    assert SERIES not in text
    return text


# Order


@given(
    order=st.permutations(range(6)),
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    step=st.floats(0.3, 20),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
)
def test_slices_are_sorted_along_their_normal(
    tmp_path_factory: pytest.TempPathFactory,
    order: list[int],
    angles: tuple[float, ...],
    step: float,
    origin: tuple[float, ...],
) -> None:
    a, b, c = angles
    turn = (
        np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        @ np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        @ np.array([[1, 0, 0], [0, np.cos(c), -np.sin(c)], [0, np.sin(c), np.cos(c)]])
    )
    rows, columns, normal = turn.T
    folder = tmp_path_factory.mktemp("series")
    pixels = volume(6)
    for i, place in enumerate(order):
        position = [f"{v:.6f}" for v in np.array(origin) + step * place * normal]
        orientation = [f"{v:.9f}" for v in (*rows, *columns)]
        write(
            folder / f"{i:03d}",
            pixels[place],
            ImagePositionPatient=position,
            ImageOrientationPatient=orientation,
            InstanceNumber=i,
        )
    with open_stack(str(folder)) as stack:
        info = stack.info
        assert (info.axes, info.shape, info.dtype) == ("ZYX", (6, 6, 5), "int16")
        np.testing.assert_array_equal(all_frames(stack)[0, :, 0], pixels)
        assert info.pixel_size_um["Z"] == pytest.approx(1000 * step, abs=0.01)
        assert (info.pixel_size_um["Y"], info.pixel_size_um["X"]) == (700, 500)


def test_a_series_has_no_name_and_no_suffix_of_its_own(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", volume(4))
    (folder / "README.txt").write_text("not an image")
    (folder / ".DS_Store").write_bytes(b"\0" * 200)
    with open_stack(str(folder)) as stack:
        assert stack.info.format == "DICOM"
        np.testing.assert_array_equal(all_frames(stack)[0, :, 0], volume(4))
        window = stack.read_window(0, 2, [0], slice(1, 4), slice(2, 5))
        np.testing.assert_array_equal(window[0], volume(4)[2, 1:4, 2:5])


def test_phases_of_a_position_are_time(tmp_path: Path) -> None:
    pixels = volume(6).reshape(2, 3, 6, 5)  # T, Z
    for z in range(3):
        for t in range(2):
            name = f"{5 - z}{(t + z) % 2}"  # neither T nor Z in order
            write(
                tmp_path / name, pixels[t, z], TriggerTime=40.0 * t + 3 * z, InstanceNumber=1,
                **at(8.0 * z),
            )  # fmt: skip
    with open_stack(str(tmp_path)) as stack:
        assert (stack.info.axes, stack.info.shape) == ("TZYX", (2, 3, 6, 5))
        assert stack.info.time_step_s == pytest.approx(0.04)
        np.testing.assert_array_equal(all_frames(stack)[:, :, 0], pixels)


def test_a_gap_is_missing_slices(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", volume(5), [0, 2.5, 5, 12.5, 15])
    with open_stack(str(folder)) as stack:
        assert stack.info.shape[0] == 7
        assert "of 7 slices, 2 are missing" in stack.info.lacking
        assert "2 between 5.00 and 12.50 mm" in stack.info.lacking
        assert stack.lacks(range(1), range(7))
        assert not stack.lacks(range(1), range(3))
        assert not stack.lacks(range(1), range(5, 7))
        np.testing.assert_array_equal(stack.read(0, 5, [0])[0], volume(5)[3])
        with pytest.raises(FrameError, match="2 are missing"):
            stack.read(0, 3, [0])


def test_slices_one_by_one_need_no_distance(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", volume(4), [0, 9, 1, 4])
    text = refused(folder, "its slices lie")
    assert "--axes TYX" in text
    with open_stack(str(folder), "TYX") as stack:
        assert "Z" not in stack.info.pixel_size_um
        np.testing.assert_array_equal(all_frames(stack)[:, 0, 0], volume(4)[[0, 2, 3, 1]])


def test_a_doubled_slice_is_named(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", volume(4), [0, 2.5, 2.5, 5], list("dbca"))
    refused(folder, "2 slices lie at the same position, 2.50 mm along the normal (b, c)")


def test_a_file_called_by_a_uid_is_not_quoted(tmp_path: Path) -> None:
    names = [f"1.2.826.0.1.3680043.8.498.{i}.dcm" for i in range(4)]
    folder = write_series(tmp_path / "ct", volume(4), [0, 2.5, 2.5, 5], names)
    assert names[1] not in refused(folder, "a file named by its UID")


@pytest.mark.parametrize(
    ("elements", "says"),
    [
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "1 of its 4 slices lie in another"),
        ({"ImagePositionPatient": None}, "1 of its 4 frames have no position"),
        ({"PixelSpacing": [0.7, 0.6]}, "the pixels of odd have another size"),
        ({"Rows": 3, "Columns": 10}, "odd has 3 x 10 px"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "1 of its 4 slices lie in another"),
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "a slope of 0"),
    ],
)
def test_a_slice_unlike_the_others_is_named(
    tmp_path: Path, elements: dict[str, Any], says: str
) -> None:
    folder = write_series(tmp_path / "ct", volume(3))
    write(folder / "odd", volume(1)[0], **(at(7.5) | elements))
    with pytest.raises(StackError, match=re.escape(says)):
        open_stack(str(folder))


def test_several_series_are_chosen_from(tmp_path: Path) -> None:
    write_series(tmp_path, volume(3), names=["a", "b", "c"])
    other = {"SeriesInstanceUID": f"{SERIES}.9", "SeriesNumber": 7, "SeriesDescription": "thin"}
    write_series(tmp_path, volume(2) + 500, names=["d", "e"], **other)
    text = refused(tmp_path, "holds 2 series: 4 (CT, 3 frames of 6 x 5 px); 7 (CT, 2 frames")
    assert "Quincy" not in text
    for choice in ("7", "thin", "22222.9"):
        with open_stack(str(tmp_path), series=choice) as stack:
            assert (stack.info.series, stack.info.shape) == ("7", (2, 6, 5))
    assert [s.info.series for s in open_stacks(str(tmp_path), series="all")] == ["4", "7"]
    refused(tmp_path, "has no series 5", series="5")


def test_files_without_positions_are_frames_by_number(tmp_path: Path) -> None:
    for i, name in enumerate("cab"):
        write(tmp_path / name, volume(3)[i], InstanceNumber=i + 1)
    with open_stack(str(tmp_path)) as stack:
        assert stack.info.axes == "TYX"
        np.testing.assert_array_equal(all_frames(stack)[:, 0, 0], volume(3))
    write(tmp_path / "d", volume(1)[0], InstanceNumber=1)
    refused(tmp_path, "nothing tells the order of its 4 files")


# Values


@pytest.mark.parametrize(
    ("dtype", "elements", "reads_as"),
    [
        ("int16", {}, "int16"),
        ("uint16", {}, "uint16"),
        ("uint8", {}, "uint8"),
        ("uint16", {"BitsStored": 12, "RescaleSlope": 1, "RescaleIntercept": -1024}, "int16"),
        ("int16", {"RescaleSlope": 1, "RescaleIntercept": -1024}, "int32"),
        ("int16", {"BitsStored": 15, "RescaleSlope": 4}, "int32"),
        ("int16", {"BitsStored": 14, "RescaleSlope": 2, "RescaleIntercept": -7}, "int16"),
        ("uint16", {"RescaleSlope": 0.25, "RescaleIntercept": 3.5}, "float32"),
    ],
)
def test_values_are_those_of_the_modality(
    tmp_path: Path, dtype: str, elements: dict[str, Any], reads_as: str
) -> None:
    stored = volume(1, dtype=dtype)[0]
    path = write(tmp_path / "ct.dcm", stored, **elements)
    with open_stack(str(path)) as stack:
        assert stack.info.dtype == reads_as
        expected = stored.astype(np.float64) * float(elements.get("RescaleSlope", 1))
        expected += float(elements.get("RescaleIntercept", 0))
        np.testing.assert_array_equal(stack.read(0, 0, [0])[0], expected)


def test_slices_may_have_scales_of_their_own(tmp_path: Path) -> None:
    # As in PET, where each slice has its own.
    folder = write_series(tmp_path / "pet", volume(2), RescaleSlope=0.5, RescaleIntercept=0)
    write(folder / "c", volume(3)[2], **at(5), RescaleSlope=4, RescaleIntercept=1, InstanceNumber=9)
    with open_stack(str(folder)) as stack:
        np.testing.assert_array_equal(stack.read(0, 1, [0])[0], volume(2)[1] * 0.5)
        np.testing.assert_array_equal(stack.read(0, 2, [0])[0], volume(3)[2] * 4.0 + 1)
        assert "2 different rescale slopes" in stack.info.unused[0]


@pytest.mark.parametrize("spacing", [None, [0, 0]])
def test_slices_whose_volume_is_unknown_are_said(tmp_path: Path, spacing: list[int] | None) -> None:
    """volume_ml of the results was empty without a word."""
    folder = write_series(tmp_path / "ct", volume(3), PixelSpacing=spacing)
    note = "tells no size of its pixels (PixelSpacing), so volume_ml stays empty"
    with open_stack(str(folder)) as stack:
        assert stack.info.pixel_size_um == {"Z": 2500}
        assert stack.info.unused == (note,)
    write(tmp_path / "one.dcm", volume(1)[0], PixelSpacing=spacing)
    with open_stack(str(tmp_path / "one.dcm")) as stack:  # a plane has no volume
        assert not stack.info.unused
    unplaced = write_series(tmp_path / "flat", volume(2), ImagePositionPatient=None)
    with open_stack(str(unplaced), axes="ZYX") as stack:
        assert "tells no distance of its slices, so volume_ml" in stack.info.unused[-1]


def test_monochrome1_grows_with_brightness(tmp_path: Path) -> None:
    stored = volume(1, dtype="uint16")[0]
    path = write(
        tmp_path / "cr", stored, PhotometricInterpretation="MONOCHROME1", BitsStored=12,
        RescaleSlope=1, RescaleIntercept=10,
    )  # fmt: skip
    with open_stack(str(path)) as stack:
        assert stack.info.min_is_white
        np.testing.assert_array_equal(stack.read(0, 0, [0])[0], 4095 - stored.astype(int) + 10)


def test_a_table_of_values(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset

    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [40, 0, 16], np.arange(1000, 880, -3, "uint16").tobytes()
    stored = volume(1, dtype="uint8")[0]
    path = write(tmp_path / "lut", stored, ModalityLUTSequence=[lut])
    with open_stack(str(path)) as stack:
        assert stack.info.dtype == "uint16"
        np.testing.assert_array_equal(stack.read(0, 0, [0])[0], 1000 - 3 * stored.astype(int))


def test_colours_are_channels(tmp_path: Path) -> None:
    rgb = volume(3, dtype="uint8").transpose(1, 2, 0)
    path = write(tmp_path / "us", np.ascontiguousarray(rgb))
    with open_stack(str(path)) as stack:
        assert (stack.info.axes, stack.info.shape) == ("CYX", (3, 6, 5))
        np.testing.assert_array_equal(stack.read(0, 0, [2, 0]), rgb.transpose(2, 0, 1)[[2, 0]])
        window = stack.read_window(0, 0, [1], slice(2, 4), slice(0, 3))
        np.testing.assert_array_equal(window[0], rgb[2:4, :3, 1])


def multiframe(pixels: np.ndarray[Any, Any], order: list[int]) -> Any:
    """An enhanced CT whose frames lie in another order than they are stored in."""
    from pydicom.dataset import Dataset

    ds = dataset(pixels[order], NumberOfFrames=len(pixels))
    ds.Rows, ds.Columns = pixels.shape[-2:]
    shared, measures, plane, values = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [0.4, 0.3]
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    values.RescaleSlope, values.RescaleIntercept = 1, -10
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [plane]
    shared.PixelValueTransformationSequence = [values]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = []
    for z in order:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 3.0 * z]
        frame.PlanePositionSequence = [position]
        ds.PerFrameFunctionalGroupsSequence.append(frame)
    return ds


def test_frames_of_a_file_are_sorted_too(tmp_path: Path) -> None:
    pixels = volume(4, dtype="uint8")
    path = tmp_path / "enhanced.dcm"
    multiframe(pixels, [2, 0, 3, 1]).save_as(path, enforce_file_format=True)
    with open_stack(str(path)) as stack:
        assert (stack.info.axes, stack.info.shape, stack.info.dtype) == ("ZYX", (4, 6, 5), "int16")
        assert stack.info.pixel_size_um == pytest.approx({"Z": 3000, "Y": 400, "X": 300})
        np.testing.assert_array_equal(all_frames(stack)[0, :, 0], pixels.astype(int) - 10)


@pytest.mark.parametrize("width", [5, 8])  # frames that do, and do not, begin at a whole byte
def test_frames_of_bits(tmp_path: Path, width: int) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (3, 3, width), dtype=np.uint8)
    ds = dataset(bits, NumberOfFrames=3, BitsAllocated=1, BitsStored=1, HighBit=0)
    ds.Rows, ds.Columns, ds.FrameTime = 3, width, 250
    packed = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    ds.PixelData = packed + b"\0" * (len(packed) % 2)
    ds.save_as(tmp_path / "seg", enforce_file_format=True)
    with open_stack(str(tmp_path / "seg")) as stack:
        assert (stack.info.axes, stack.info.time_step_s) == ("TYX", 0.25)
        np.testing.assert_array_equal(all_frames(stack)[:, 0, 0], bits)


# Damage


def test_every_truncation_is_one_sentence(tmp_path: Path) -> None:
    data = write(tmp_path / "whole", volume(1)[0], **at(0)).read_bytes()
    path = tmp_path / "cut"
    for n in range(1, len(data), 7):
        path.write_bytes(data[:n])
        with pytest.raises(StackError) as caught:
            open_stack(str(path))
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@settings(max_examples=300)
@given(at=st.integers(128, 2000), byte=st.integers(0, 255))
def test_a_wrong_byte_raises_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int
) -> None:
    folder = tmp_path_factory.mktemp("byte")
    data = bytearray(write(folder / "a", volume(1)[0]).read_bytes())
    data[at % len(data)] = byte
    (folder / "a").write_bytes(data)
    try:
        with open_stack(str(folder / "a")) as stack:
            stack.read(0, 0, [0])
    except (StackError, FrameError) as error:
        assert "\n" not in str(error)
        assert not any(secret in str(error) for secret in (*PATIENT.values(), SERIES, "Doe"))


def test_a_truncated_slice_costs_itself(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", volume(3), names=["a", "b", "c"])
    (folder / "b").write_bytes((folder / "b").read_bytes()[:-20])
    with open_stack(str(folder)) as stack:
        np.testing.assert_array_equal(stack.read(0, 2, [0])[0], volume(3)[2])
        with pytest.raises(FrameError, match=r"t=0, z=1 cannot be read \(b: is truncated"):
            stack.read(0, 1, [0])


@pytest.mark.parametrize(
    ("elements", "says"),
    [
        ({"Rows": 65_000, "Columns": 65_000}, "is truncated: its pixels take 8,450,000,000 bytes"),
        ({"NumberOfFrames": 2_000_000_000}, "is truncated"),
        ({"Rows": 3}, "counts 1 frame, but its pixels are those of 2"),
        ({"BitsAllocated": 24}, "has 24 bits a value"),
        ({"SamplesPerPixel": 4}, "which are not intensities"),
        ({"PhotometricInterpretation": "HSV"}, "which are not intensities"),
        ({"Rows": None}, "does not say its Rows"),
        ({"PixelData": None}, "holds no pixels: its class is CT Image Storage"),
    ],
)
def test_hostile_headers(tmp_path: Path, elements: dict[str, Any], says: str) -> None:
    path = write(tmp_path / "bad.dcm", volume(1)[0], **elements)
    refused(path, says)


def compressed(path: Path, pixels: np.ndarray[Any, Any]) -> Any:
    from pydicom.uid import RLELossless

    ds = dataset(pixels)
    ds.compress(RLELossless)
    ds.save_as(path, enforce_file_format=True)
    return ds


def test_compressed_pixels_too_small_for_their_claim(tmp_path: Path) -> None:
    path = tmp_path / "rle.dcm"
    ds = compressed(path, volume(1)[0])
    with open_stack(str(path)) as stack:
        np.testing.assert_array_equal(stack.read(0, 0, [0])[0], volume(1)[0])
    ds.Rows = ds.Columns = 60_000
    ds.save_as(path, enforce_file_format=True)
    refused(path, "claims 60000 x 60000 px")


def test_a_compressed_stream_of_another_size(tmp_path: Path) -> None:
    import imagecodecs
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit

    image = np.full((400, 500), 7, np.uint8)
    ds = dataset(volume(1, dtype="uint8")[0])
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    stream = imagecodecs.jpeg_encode(image)
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].VR = "OB"
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    refused(tmp_path / "a.dcm", "its compressed stream has 400 x 500 px")
    ds.Rows, ds.Columns = image.shape
    ds.PixelData = encapsulate([stream[:-40]])
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    refused(tmp_path / "a.dcm", "its compressed stream has no end")
    ds.PixelData = encapsulate([stream, stream])
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    refused(tmp_path / "a.dcm", "counts 1 frame, but holds 2 compressed images")


def test_a_deflated_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    from engine.stacks.dicom import header

    ds = dataset(np.zeros((1000, 1000), np.uint8))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with open_stack(str(tmp_path / "a.dcm")) as stack:
        assert not stack.read(0, 0, [0]).any()
    monkeypatch.setattr(header, "_MAX_INFLATED", 100_000)
    refused(tmp_path / "a.dcm", "far too large")


def test_identity_follows_every_file(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", volume(3), names=["a", "b", "c"])
    with open_stack(str(folder)) as stack:
        before = stack.info.identity
    write(folder / "b", volume(3)[1] + 1, **at(2.5), InstanceNumber=12)
    with open_stack(str(folder)) as stack:
        assert stack.info.identity != before


def test_two_kinds_in_a_folder(tmp_path: Path) -> None:
    import tifffile

    write_series(tmp_path, volume(3))
    for i in range(2):
        tifffile.imwrite(tmp_path / f"{i}.tif", volume(1)[0])
    refused(tmp_path, "holds 3 DICOM files and 2 other images")


def test_a_slice_alone_is_as_deep_as_it_is_thick(tmp_path: Path) -> None:
    pixels = np.zeros((4, 5), np.uint16)
    path = write(tmp_path / "a.dcm", pixels, SliceThickness=5, PixelSpacing=[0.7, 0.5])
    with open_stack(str(path)) as stack:
        assert "Z" not in stack.info.axes
        assert stack.info.pixel_size_um == {"Z": 5000, "Y": 700, "X": 500}
        assert voxel_ml(stack.info.pixel_size_um) == pytest.approx(5 * 0.7 * 0.5 / 1000)
