"""LZW pages decoded as a whole are those that strips and tiles give one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from engine.stacks.tiff import lzw
from engine.stacks.tiff.page import page_part

LAYOUTS: list[dict[str, Any]] = [
    {"rowsperstrip": 3}, {"rowsperstrip": 1000}, {"tile": (16, 32)}, {"rowsperstrip": 7},
]  # fmt: skip
WHOLE = (slice(0, 41), slice(0, 53))


def written(path: Path, dtype: str, order: str, predictor: int, layout: dict[str, Any]) -> Any:
    pixels = np.random.default_rng(0).integers(0, 90, (41, 53)).astype(dtype)
    tifffile.imwrite(
        path, pixels, byteorder=order, compression="lzw", predictor=predictor,
        photometric="minisblack", **layout,
    )  # fmt: skip
    return pixels


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "uint32"])
def test_all_layouts(tmp_path: Path, dtype: str, order: str) -> None:
    for predictor in (1, 2) if dtype != "float32" else (1,):
        for layout in LAYOUTS:
            pixels = written(tmp_path / "a.tif", dtype, order, predictor, layout)
            with tifffile.TiffFile(tmp_path / "a.tif") as tif:
                page = tif.pages[0]
                assert lzw.packed_bytes(page) == sum(page.databytecounts)
                found = lzw.decoded(page)
                assert found is not None and found.dtype == np.dtype(dtype)
                assert np.array_equal(found, pixels)
                assert np.array_equal(page_part(page, pixels.shape, WHOLE), pixels)


@pytest.mark.parametrize("layout", LAYOUTS[:3])
def test_what_libtiff_refuses_is_left_to_the_other_way(tmp_path: Path, layout: Any) -> None:
    path = tmp_path / "a.tif"
    written(path, "uint16", "<", 1, layout)
    with tifffile.TiffFile(path) as tif:
        start, size = tif.pages[0].dataoffsets[-1], tif.pages[0].databytecounts[-1]
    data = bytearray(path.read_bytes())
    data[start : start + size] = b"\xff" * size
    path.write_bytes(data)
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        assert lzw.decoded(page) is None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lzw, "packed_bytes", lambda page: 0)
            plain = _outcome(page)
        assert _outcome(page) == plain


def _outcome(page: Any) -> str:
    try:
        return str(page_part(page, (41, 53), WHOLE).sum())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def test_pages_of_several_samples_are_not_decoded_here(tmp_path: Path) -> None:
    pixels = np.zeros((8, 9, 3), np.uint8)
    tifffile.imwrite(tmp_path / "rgb.tif", pixels, compression="lzw", photometric="rgb")
    with tifffile.TiffFile(tmp_path / "rgb.tif") as tif:
        assert lzw.packed_bytes(tif.pages[0]) == 0
