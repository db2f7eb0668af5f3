"""NIfTI: read as nibabel reads it, with T Z Y X for its x y z t, and no more of it in memory."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import FrameError, StackError
from engine.stacks import nifti
from engine.stacks.open import open_stack
from tests.stacks.frames import all_frames, check, ramp

nib = pytest.importorskip("nibabel")

SUFFIXES = [".nii", ".nii.gz"]


def write(path: Path, pixels: np.ndarray[Any, Any], axes: str, **header: Any) -> Path:
    """A file of `pixels`, whose axes are `axes`; `header` has zooms, units, affine, kind."""
    order = [axes.index(a) for a in "XYZTC" if a in axes]
    kind = header.get("kind", nib.Nifti1Image)
    image = kind(pixels.transpose(order), header.get("affine", np.eye(4)), dtype=pixels.dtype)
    image.header.set_zooms(header.get("zooms", (1.0,) * pixels.ndim))
    image.header.set_xyzt_units(*header.get("units", ("mm", "sec")))
    nib.save(image, path)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "uint16", "float64", "int8"])
def test_a_volume(tmp_path: Path, suffix: str, kind: Any, dtype: str) -> None:
    pixels = ramp((4, 6, 5), dtype)
    path = write(tmp_path / f"a{suffix}", pixels, "ZYX", zooms=(0.5, 0.7, 3), kind=kind)
    with check(path, pixels, "ZYX") as stack:
        size = {"Z": 3000, "Y": 700, "X": 500}
        assert stack.info.pixel_size_um == pytest.approx(size)
        assert stack.info.axes == "ZYX"
        window = stack.read_window(0, 2, [0], slice(1, 5), slice(2, 4))
        np.testing.assert_array_equal(window[0], pixels[2, 1:5, 2:4])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("shape", "axes"), [((3, 2, 6, 5), "TZYX"), ((2, 3, 4, 6, 5), "CTZYX"), ((6, 5), "YX")]
)
def test_other_dimensions(tmp_path: Path, suffix: str, shape: tuple[int, ...], axes: str) -> None:
    pixels = ramp(shape)
    units = {"zooms": (1, 1, 1, 2.5, 1)[: len(shape)], "units": ("micron", "msec")}
    with check(write(tmp_path / f"a{suffix}", pixels, axes, **units), pixels, axes) as stack:
        assert stack.info.pixel_size_um == dict.fromkeys("ZYX" if "Z" in axes else "YX", 1.0)
        assert stack.info.time_step_s == (pytest.approx(0.0025) if "T" in axes else None)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("scale", "reads_as"), [((2, -7), "int32"), ((1, 0), "int16"), ((0.5, 1), "float32")]
)
def test_values_are_scaled(
    tmp_path: Path, suffix: str, scale: tuple[float, float], reads_as: str
) -> None:
    pixels = ramp((3, 6, 5), "int16")
    path = tmp_path / f"a{suffix}"
    image = nib.Nifti1Image(pixels.T, np.eye(4))
    image.header.set_slope_inter(*scale)
    image.header["pixdim"][1:4] = 1
    data = image.header.binaryblock + b"\0" * 4 + pixels.tobytes()
    path.write_bytes(gzip.compress(data) if suffix == ".nii.gz" else data)
    expected = np.asarray(nib.load(path).dataobj).T
    with open_stack(str(path)) as stack:
        assert stack.info.dtype == reads_as
        np.testing.assert_array_equal(all_frames(stack)[0, :, 0], expected)


def test_colours(tmp_path: Path) -> None:
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    pixels = ramp((3, 6, 5, 3), "uint8")
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(pixels.view(rgb)[..., 0].T, np.eye(4)), path)
    with check(path, pixels, "ZYXC") as stack:
        assert stack.info.axes == "CZYX"


def test_big_endian(tmp_path: Path) -> None:
    pixels = ramp((3, 6, 5), "int16")
    header = nib.Nifti1Header(endianness=">")
    image = nib.Nifti1Image(pixels.T.astype(">i2"), np.eye(4), header)
    nib.save(image, tmp_path / "a.nii")
    check(tmp_path / "a.nii", pixels, "ZYX").close()


def test_an_unknown_unit_is_millimetres(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", ramp((2, 6, 5)), "ZYX", units=("unknown", "unknown"))
    with open_stack(str(path)) as stack:
        assert stack.info.pixel_size_um["Y"] == 1000
        assert "mm is assumed" in stack.info.unused[0]


def test_the_affine_is_that_of_the_file(tmp_path: Path) -> None:
    affine = np.array([[0, -0.7, 0, 10], [0.5, 0, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]], float)
    pixels = ramp((4, 6, 5))
    path = write(tmp_path / "a.nii.gz", pixels, "ZYX", affine=affine, zooms=(0.5, 0.7, 3))
    np.testing.assert_allclose(nifti.affine_of(str(path)), affine, atol=1e-6)


@given(order=st.lists(st.integers(0, 39), min_size=1, max_size=30))
def test_packed_frames_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("packed")
    pixels = np.random.default_rng(0).integers(0, 2**12, (40, 32, 40)).astype("uint16")
    path = write(folder / "a.nii.gz", pixels, "ZYX")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nifti, "_MARK_BYTES", 5_000)
        patch.setattr(nifti, "_CHUNK", 512)
        stack = open_stack(str(path))
        for z in order:
            np.testing.assert_array_equal(stack.read(0, z, [0])[0], pixels[z])
    assert len(stack._data._marks) <= nifti._MARKS + 1  # type: ignore[attr-defined]


def refused(path: Path, says: str) -> None:
    with pytest.raises(StackError, match=re.escape(says)) as caught:
        open_stack(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_damage(tmp_path: Path) -> None:
    pixels = ramp((4, 60, 50))
    path = write(tmp_path / "a.nii", pixels, "ZYX")
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    refused(path, "is truncated or damaged: its voxels take")
    path.write_bytes(data[:200])
    refused(path, "is not TIFF")
    path.write_bytes(data[:40] + b"\xff\x7f" + data[42:])
    refused(path, "its header is damaged")
    path.write_bytes(data[:70] + (32).to_bytes(2, "little") + data[72:])  # complex numbers
    refused(path, "complex64")
    path.write_bytes(data[:70] + (99).to_bytes(2, "little") + data[72:])
    refused(path, "of an unknown type")
    path.write_bytes(data[:344] + b"ni1\0" + data[348:])
    refused(path, "is the header of a pair of files")
    path.write_bytes(data[:42] + b"\xff\x7f\xff\x7f" + data[46:])
    refused(path, "is truncated or damaged")


def test_damage_in_gzip(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**12, (8, 60, 50)).astype("uint16")
    path = write(tmp_path / "a.nii.gz", pixels, "ZYX")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with open_stack(str(path)) as stack:
        np.testing.assert_array_equal(stack.read(0, 1, [0])[0], pixels[1])
        with pytest.raises(FrameError, match="is truncated"):
            stack.read(0, 7, [0])
    path.write_bytes(data[:300])
    refused(path, "is truncated")
    path.write_bytes(gzip.compress(b"no image at all" * 100))
    refused(path, "is compressed by gzip, and not NIfTI")
