"""Pixels that fill a DICOM frame up beyond the image are read as its darkest ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.model.spec import Normalisation
from engine.model.statistics import frame_statistics
from engine.stacks.dicom.padding import Padding, padding_of
from engine.stacks.open import open_stack
from tests.stacks.dicoms import at, dataset, write

pytest.importorskip("pydicom")


def slice_of(padding: int, dtype: str = "int16") -> NDArray[Any]:
    """Air and tissue in the middle, padding in the first rows."""
    pixels = np.linspace(100, 1400, 48 * 40).reshape(48, 40).astype(dtype)
    pixels[:12] = padding
    return pixels


def read(path: Path) -> NDArray[Any]:
    with open_stack(str(path)) as stack:
        return stack.read(0, 0, [0])[0]


def raw(path: Path, pixels: NDArray[Any], value: int, vr: str = "SS", **elements: Any) -> Path:
    """A file whose padding value has the type `vr`, whatever its pixels have."""
    ds = dataset(pixels, **elements)
    ds.add_new("PixelPaddingValue", vr, value)
    ds.save_as(path, enforce_file_format=True)
    return path


def test_padding_is_read_as_the_darkest_pixel_of_the_image(tmp_path: Path) -> None:
    pixels = slice_of(-2000)
    path = raw(tmp_path / "a.dcm", pixels, -2000, RescaleSlope=1, RescaleIntercept=-1024)
    found = read(path)
    np.testing.assert_array_equal(found[12:], pixels[12:] - 1024)
    assert (found[:12] == pixels[12:].min() - 1024).all()
    with open_stack(str(path)) as stack:
        (note,) = stack.info.unused
        assert note.startswith("has the padding value -2000: such pixels are read as the darkest")


def test_statistics_are_those_of_the_image(tmp_path: Path) -> None:
    """A quarter of -2000 took the low percentile from the air to the padding."""
    path = raw(tmp_path / "a.dcm", slice_of(-2000), -2000)
    low, _ = frame_statistics(read(path)[None], Normalisation())[0]
    assert low == slice_of(-2000)[12:].min()


def test_of_minimum_is_white_the_darkest_is_the_largest(tmp_path: Path) -> None:
    pixels = slice_of(4095, "uint16")
    path = raw(
        tmp_path / "a.dcm",
        pixels,
        4095,
        "US",
        PhotometricInterpretation="MONOCHROME1",
        BitsStored=12,
        HighBit=11,
    )
    found = read(path)
    np.testing.assert_array_equal(found[12:], 4095 - pixels[12:])
    assert (found[:12] == found[12:].min()).all()


def test_a_negative_value_may_be_written_as_its_unsigned_twin(tmp_path: Path) -> None:
    path = raw(tmp_path / "a.dcm", slice_of(-2000), 65536 - 2000, "US")
    assert (read(path)[:12] == slice_of(-2000)[12:].min()).all()


def test_a_range_of_values_is_padding(tmp_path: Path) -> None:
    pixels = slice_of(-2000)
    pixels[:4] = -1990
    ds = dataset(pixels)
    ds.add_new("PixelPaddingValue", "SS", -2000)
    ds.add_new("PixelPaddingRangeLimit", "SS", -1500)
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert (read(tmp_path / "a.dcm")[:12] == pixels[12:].min()).all()
    with open_stack(str(tmp_path / "a.dcm")) as stack:
        assert "padding value -2000 to -1500" in stack.info.unused[0]


def test_padding_beyond_the_stored_bits_does_no_harm(tmp_path: Path) -> None:
    pixels = slice_of(63536, "uint16")
    path = raw(
        tmp_path / "a.dcm",
        pixels,
        63536,
        "US",
        BitsStored=12,
        HighBit=11,
        RescaleSlope=1,
        RescaleIntercept=-1024,
    )
    assert (read(path)[:12] == int(pixels[12:].min()) - 1024).all()


@pytest.mark.parametrize("value", [600, 5000])
def test_a_value_of_the_image_or_of_no_pixel_changes_nothing(tmp_path: Path, value: int) -> None:
    """Headers are known that name a value of tissue."""
    pixels = np.linspace(100, 1400, 48 * 40).reshape(48, 40).astype("int16")
    pixels[0, 0] = 600
    np.testing.assert_array_equal(read(raw(tmp_path / "a.dcm", pixels, value)), pixels)


def test_a_frame_of_padding_alone_stays_as_it_is(tmp_path: Path) -> None:
    pixels = np.full((6, 5), -2000, dtype="int16")
    assert (read(raw(tmp_path / "a.dcm", pixels, -2000)) == -2000).all()


def test_files_of_a_series_may_have_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    folder.mkdir()
    for value in (-2000, -3000):
        write(folder / f"{-value}.dcm", slice_of(value), PixelPaddingValue=value, **at(-value))
    with open_stack(str(folder)) as stack:
        assert "padding value -2000, -3000" in stack.info.unused[0]
        for z in range(2):
            assert stack.read(0, z, [0]).min() == slice_of(0)[12:].min()


def test_a_few_pixels_beyond_the_padding_do_not_save_it() -> None:
    """One pixel of -2048 had left a frame's padding while its neighbours' was filled."""
    pixels = slice_of(-2000)
    pixels[20, 20] = -2048
    found = Padding(-2000, -2000).filled(pixels, min_is_white=False)
    assert (found[:12] == slice_of(-2000)[12:].min()).all()
    assert found[20, 20] == -2048


def test_of_two_values_one_stays_padding() -> None:
    """A mask of 0 and 200 whose padding value is 0 had become 200 everywhere."""
    pixels = np.array([[0, 200], [200, 0]], np.uint8)
    np.testing.assert_array_equal(Padding(0, 0).filled(pixels, min_is_white=False), pixels)


def test_a_range_beyond_the_bits_is_the_value_alone() -> None:
    """-2000 to 0 in 16 bits without sign is no range from 0 to 63536."""
    from pydicom.dataset import Dataset

    header = Dataset()
    header.add_new("PixelPaddingValue", "SS", -2000)
    header.add_new("PixelPaddingRangeLimit", "SS", 0)
    assert padding_of(header, 16, signed=False) == Padding(63536, 63536)
    assert padding_of(header, 16, signed=True) == Padding(-2000, 0)


def test_colours_and_floats_have_no_padding(tmp_path: Path) -> None:
    colours = np.arange(6 * 5 * 3).reshape(6, 5, 3).astype(np.uint8)
    write(tmp_path / "rgb.dcm", colours, PixelPaddingValue=0)
    with open_stack(str(tmp_path / "rgb.dcm")) as stack:
        np.testing.assert_array_equal(stack.read(0, 0, [0, 1, 2]), np.moveaxis(colours, -1, 0))
        assert not stack.info.unused
    floats = np.linspace(-1, 1, 30).reshape(6, 5).astype(np.float32)
    ds = dataset(floats, PixelData=None, PixelPaddingValue=0)
    ds.FloatPixelData = floats.tobytes()
    ds.save_as(tmp_path / "float.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read(tmp_path / "float.dcm"), floats)


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=40),
    st.integers(-60, 60),
    st.integers(0, 20),
    st.booleans(),
)
def test_only_padding_changes_and_only_to_the_darkest(
    values: list[int], low: int, width: int, min_is_white: bool
) -> None:
    pixels = np.array(values, dtype=np.int16)[None]
    padding = Padding(low, low + width)
    found = padding.filled(pixels, min_is_white)
    below, above = [v for v in values if v < low], [v for v in values if v > low + width]
    image = above if len(above) > len(below) else below
    is_left = (below and above) or len(set(image)) < 2  # of 40 pixels, one is more than 1 %
    dark = (max if min_is_white else min)(image, default=0)
    expected = [dark if not is_left and low <= v <= low + width else v for v in values]
    assert found.tolist() == [expected]
    assert found.dtype == pixels.dtype
