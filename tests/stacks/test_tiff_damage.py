from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from engine.errors import FrameError, StackError
from engine.stacks.open import open_stack
from tests.stacks.frames import ramp


def _cut(path: Path, n: int) -> None:
    os.truncate(path, n)


def test_truncated_in_the_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp((100, 100)))
    _cut(path, 5_000)
    with pytest.raises(StackError, match="truncated"):
        open_stack(str(path))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    "options", [{}, {"metadata": None}, {"compression": "lzw"}, {"imagej": True}]
)
def test_truncation_is_never_a_shorter_stack(
    tmp_path: Path, share: float, options: dict[str, object]
) -> None:
    pixels = ramp((10, 64, 64))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, **options)  # type: ignore[arg-type]
    _cut(path, int(path.stat().st_size * share))
    try:
        stack = open_stack(str(path))
    except StackError as error:
        assert "truncated" in str(error) and "\n" not in str(error)
        return
    assert stack.info.n_frames == 10
    for t in range(10):
        try:
            np.testing.assert_array_equal(stack.read(t, 0, [0])[0], pixels[t])
        except FrameError as error:
            assert "\n" not in str(error)


def test_later_frames_cut_off_cost_those_frames(tmp_path: Path) -> None:
    """Directories first, pixels behind them: a truncation takes pixels only."""
    path = tmp_path / "a.tif"
    pixels = ramp((6, 64, 64))
    tifffile.imwrite(path, pixels, truncate=True, metadata={"axes": "TYX"})
    _cut(path, path.stat().st_size - 64 * 64 * 2)
    with open_stack(str(path)) as stack:
        np.testing.assert_array_equal(stack.read(4, 0, [0])[0], pixels[4])
        with pytest.raises(FrameError, match="truncated"):
            stack.read(5, 0, [0])


def test_big_imagej_file_that_is_cut_off(tmp_path: Path) -> None:
    """ImageJ files over 4 GB have one directory and all pixels behind it."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp((10, 64, 64)), imagej=True, truncate=True)
    _cut(path, path.stat().st_size - 100)
    with pytest.raises(StackError, match="truncated"):
        open_stack(str(path))


def test_a_damaged_description_is_never_a_shorter_stack(tmp_path: Path) -> None:
    """It alone says how many frames lie behind the one directory."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp((6, 64, 64)), truncate=True, metadata={"axes": "TYX"})
    data = path.read_bytes()
    assert b"[6, 64, 64]" in data
    path.write_bytes(data.replace(b"[6, 64, 64]", b"[6, 64, 64;"))
    with pytest.raises(StackError) as caught:
        open_stack(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("back_to", [0, 50, 149])
def test_a_chain_that_runs_in_a_circle(tmp_path: Path, back_to: int) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for _ in range(150):
            writer.write(ramp((8, 8)), metadata=None, contiguous=False)
    with tifffile.TiffFile(path) as tif:
        target = tif.pages[back_to].offset
        link = tif.pages[149].offset
    data = bytearray(path.read_bytes())
    end = link + 2 + 12 * struct.unpack_from("<H", data, link)[0]
    struct.pack_into("<I", data, end, target)
    path.write_bytes(data)
    with pytest.raises(StackError, match="loops back"):
        open_stack(str(path))


def test_a_damaged_packed_frame_costs_that_frame(tmp_path: Path) -> None:
    pixels = ramp((5, 64, 64))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[2].dataoffsets[0], tif.pages[2].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = b"\xa5" * count
    path.write_bytes(data)
    with open_stack(str(path)) as stack:
        with pytest.raises(FrameError, match="frame t=2") as caught:
            stack.read(2, 0, [0])
        assert "\n" not in str(caught.value)
        np.testing.assert_array_equal(stack.read(3, 0, [0])[0], pixels[3])


def test_reading_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp((10, 64, 64)), imagej=True)
    _cut(path, path.stat().st_size - 100)
    with pytest.raises(StackError):
        open_stack(str(path))
    assert capfd.readouterr() == ("", "")
