"""TIFF values: where 0 is white, and alpha channels."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from engine.stacks.open import open_stack
from tests.stacks.frames import check, ramp
from tests.stacks.numbered import SIDES, numbered

# -- 0 is white -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"tile": (16, 16)},
        {"rowsperstrip": 4, "compression": "lzw"},
        {"metadata": {"axes": "TYX"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "bool"])
def test_where_0_is_white_values_are_turned_round(
    tmp_path: Path, dtype: str, options: dict[str, Any]
) -> None:
    if dtype == "bool" and "tile" in options:
        options = {}  # tifffile writes no tiles of bits
    bright = ramp((3, *SIDES), dtype)
    stored = ~bright  # for unsigned: the largest value minus it; for signed: -1 minus it
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric="miniswhite", **{"metadata": None, **options})
    with check(path, bright, "TYX") as stack:
        assert stack.info.min_is_white
        window = stack.read_window(1, 0, [0], slice(2, 9), slice(3, 20))
        np.testing.assert_array_equal(window[0], bright[1, 2:9, 3:20].astype(stack.info.dtype))


def test_twelve_bits_of_which_0_is_white(tmp_path: Path) -> None:
    bright = (ramp(SIDES) % 4096).astype(np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, 4095 - bright, photometric="minisblack", metadata=None, bitspersample=12)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        at = tif.pages[0].tags[262].valueoffset
    struct.pack_into("<H", data, at, 0)
    path.write_bytes(data)
    check(path, bright, "YX").close()


def test_frames_of_which_some_say_that_0_is_white(tmp_path: Path) -> None:
    pages = numbered(*range(4))
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for i, page in enumerate(pages):
            white = i % 2 == 1
            writer.write(
                ~page if white else page, photometric="miniswhite" if white else "minisblack",
                metadata=None, contiguous=False,
            )  # fmt: skip
    check(tmp_path / "a.tif", pages, "TYX").close()


def test_floats_have_no_white(tmp_path: Path) -> None:
    pixels = ramp(SIDES, "float32")
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite", metadata=None)
    with check(tmp_path / "a.tif", pixels, "YX") as stack:
        assert not stack.info.min_is_white
        assert any("0 is white" in said for said in stack.info.unused)


def test_a_folder_of_files_in_which_0_is_white(tmp_path: Path) -> None:
    pages = numbered(*range(3))
    for i, page in enumerate(pages):
        tifffile.imwrite(tmp_path / f"{i}.tif", ~page, photometric="miniswhite", metadata=None)
    with check(tmp_path, pages, "TYX") as stack:
        assert stack.info.min_is_white


# -- alpha ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize("samples", [2, 4])
def test_an_opaque_alpha_channel_is_no_channel(tmp_path: Path, suffix: str, samples: int) -> None:
    from PIL import Image

    pixels = ramp((*SIDES, samples), "uint8")
    path = tmp_path / f"a.{suffix}"

    def write() -> None:
        if suffix == "png":
            Image.fromarray(pixels, {2: "LA", 4: "RGBA"}[samples]).save(path)
        else:
            photometric = "rgb" if samples == 4 else "minisblack"
            tifffile.imwrite(
                path, pixels, photometric=photometric, extrasamples=["unassalpha"],
                planarconfig="contig", metadata=None,
            )  # fmt: skip

    pixels[..., -1] = 255
    write()
    with open_stack(str(path)) as stack:
        assert stack.info.size("C") == samples - 1
        assert any("alpha" in said for said in stack.info.unused)
        found = stack.read(0, 0, range(samples - 1))
        np.testing.assert_array_equal(found, np.moveaxis(pixels[..., :-1], -1, 0))
    pixels[3, 4, -1] = 7
    write()
    check(path, pixels, "YXC").close()
