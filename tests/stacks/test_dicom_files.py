"""pydicom's own test files: each is read as pydicom reads it, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.errors import StackError
from engine.stacks.open import open_stack, open_stacks
from tests.stacks.frames import all_frames

pytestmark = pytest.mark.realdata
pytest.importorskip("pydicom")

# What the others say, by the file's name; all that are not here must be read.
REFUSED = {
    "JPEG-lossy.dcm": "its pixels cannot be decoded",
    "JPEG2000-embedded-sequence-delimiter.dcm": "but its header says 1024 x 256",
    "MR_truncated.dcm": "is truncated: its pixels take 8,192 bytes, and it has 8,130",
    "badVR.dcm": "has a damaged number of frames",
    "liver_1frame.dcm": "counts 1 frame, but describes 3",
    "liver_expb_1frame.dcm": "counts 1 frame, but describes 3",
    "meta_missing_tsyntax.dcm": "has no transfer syntax",
    **dict.fromkeys(
        ["ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "no_meta.dcm", "rtstruct.dcm"],
        "has no DICOM header",
    ),
    **dict.fromkeys(
        ["UN_sequence.dcm", "empty_charset_LEI.dcm", "nested_priv_SQ.dcm", "priv_SQ.dcm",
         "no_meta_group_length.dcm", "reportsi.dcm", "reportsi_with_empty_number_tags.dcm",
         "rtplan.dcm", "rtplan_truncated.dcm", "test-SR.dcm", "waveform_ecg.dcm"],
        "holds no pixels",
    ),
    **dict.fromkeys(
        ["LICENSE", "README", "README.txt", "crayons.icc", "rtplan.dump", "rtstruct.dump",
         "test1.json", "test_PN.json"],
        "is not TIFF, PNG, JPEG, DICOM, NIfTI or Zarr",
    ),
    "zipMR.gz": "is compressed by gzip",
}  # fmt: skip


def expectation(path: Path) -> str:
    """What is said of a file; "" where it is read."""
    if path.name.startswith("DICOMDIR") or path.parent.name.startswith("SE0"):
        return "holds no pixels"
    return REFUSED.get(path.name, "")


def by_pydicom(path: Path) -> NDArray[Any]:
    """Pixels as (frames, C, Y, X), on the scale of the modality, growing with brightness."""
    import pydicom
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    ds = pydicom.dcmread(path)
    pixels = ds.pixel_array
    if ds.PhotometricInterpretation == "MONOCHROME1":
        pixels = 2**ds.BitsStored - 1 - pixels
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, ds)
    pixels = apply_modality_lut(pixels, ds)
    colours = pixels.ndim > 2 and pixels.shape[-1] == 3
    pixels = pixels.reshape(-1, ds.Rows, ds.Columns, 3 if colours else 1)
    return pixels.transpose(0, 3, 1, 2)


def test_every_file(realdata: Path) -> None:
    folder = realdata / "dicom"
    count = {"read": 0, "refused": 0}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        says = expectation(path)
        try:
            with open_stack(str(path)) as stack:
                assert not says, f"{path} was read"
                frames = all_frames(stack).reshape(-1, *all_frames(stack).shape[2:])
        except StackError as error:
            text = str(error)
            assert says, text
            assert says in text
            assert text.startswith(f"{path}: ")
            assert "\n" not in text
            count["refused"] += 1
            continue
        expected = by_pydicom(path)
        np.testing.assert_array_equal(frames, expected.astype(stack.info.dtype), err_msg=str(path))
        np.testing.assert_allclose(frames, expected, rtol=1e-6, err_msg=str(path))
        count["read"] += 1
    assert count == {"read": 87, "refused": 90}


@pytest.mark.parametrize(
    ("name", "series", "expected"),
    [
        ("98892001/CT5N", None, [("", "ZYX", (5, 16, 16), 2500.0)]),
        ("77654033/CR1", None, [("", "YX", (16, 16), None)]),
        ("98892003/MR1", "all", [(f"1.{i}", "YX", (16, 16), 10_000.0) for i in (1, 2, 3)]),
        ("98892003/MR1", "1.2", [("1.2", "YX", (16, 16), 10_000.0)]),
    ],
)
def test_series_of_scanners(
    realdata: Path, name: str, series: str | None, expected: list[tuple[object, ...]]
) -> None:
    found = []
    for stack in open_stacks(str(realdata / "dicom/dicomdirtests" / name), series=series):
        info = stack.info
        found.append((info.series, info.axes, info.shape, info.pixel_size_um.get("Z")))
    assert found == expected


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("77654033/CT2", "its slices lie 1.25 mm apart, but those at -99.48 and 103.02 mm"),
        ("98892001/CT2N", "1 of its 2 slices lie in another direction"),
        ("98892003/MR700", "6 of its 7 slices lie in another direction"),
        ("98892003/MR2", "holds 3 series: 2.1 (MR, 3 frames of 16 x 16 px)"),
        ("TINY_ALPHA", "holds 1 DICOM file, none of which has pixels"),
    ],
)
def test_folders_that_are_no_stack(realdata: Path, name: str, says: str) -> None:
    with pytest.raises(StackError) as caught:
        open_stack(str(realdata / "dicom/dicomdirtests" / name))
    assert says in str(caught.value)
