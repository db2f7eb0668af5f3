"""Indexed colour: what becomes of a palette in a TIFF and in a PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from engine.errors import FrameError, StackError
from engine.stacks.open import open_stack
from tests.stacks.frames import check
from tests.truth.files import INDEXED, png

SIDES = (40, 50)
INDICES = np.random.default_rng(0).integers(0, 256, (3, *SIDES), np.uint8)
ANY = np.random.default_rng(1).integers(0, 256, (3, 256), np.uint8)  # colours in no order
RAMP = np.arange(256, dtype=np.uint8)
GREYS = RAMP[None, ::-1].repeat(3, axis=0)
TINT = np.stack([RAMP * 0, RAMP, RAMP // 2])


def indexed(path: Path, pages: NDArray[Any], tables: list[NDArray[Any]], **options: Any) -> Path:
    with tifffile.TiffWriter(path) as writer:
        for page, table in zip(pages, tables, strict=True):
            colormap = table.astype(np.uint16) * 257
            writer.write(page, photometric="palette", colormap=colormap, metadata=None, **options)
    return path


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "lzw"}, {"tile": (16, 16)}, {"rowsperstrip": 7, "compression": "zlib"}],
    ids=str,
)
def test_a_palette_of_colours_becomes_red_green_and_blue(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    tables = [ANY, ANY[:, ::-1], GREYS]
    path = indexed(tmp_path / "a.tif", INDICES, tables, **options)
    colours = np.stack([t[:, i] for t, i in zip(tables, INDICES, strict=True)])
    with check(path, colours, "TCYX") as stack:
        assert stack.info.dtype == "uint8"
        window = stack.read_window(1, 0, [2, 0], slice(3, 30), slice(2, 20))
        np.testing.assert_array_equal(window, colours[1, [2, 0], 3:30, 2:20])
        np.testing.assert_array_equal(stack.again().read(2, 0, [1]), colours[2, 1:2])


@pytest.mark.parametrize(
    ("table", "expected"),
    [(TINT, INDICES), (RAMP[None].repeat(3, 0), INDICES), (GREYS, 255 - INDICES)],
    ids=["tint", "ramp", "greys"],
)
def test_a_palette_of_one_colour_is_grey(
    tmp_path: Path, table: NDArray[Any], expected: NDArray[Any]
) -> None:
    path = indexed(tmp_path / "a.tif", INDICES, [table] * 3, compression="lzw")
    check(path, expected, "TYX").close()


def test_a_palette_of_16_bits(tmp_path: Path) -> None:
    wide = np.random.default_rng(2).integers(0, 2**16, SIDES, np.uint16)
    table = np.random.default_rng(3).integers(0, 256, (3, 2**16), np.uint8)
    check(indexed(tmp_path / "a.tif", wide[None], [table]), table[:, wide], "CYX").close()


def test_palettes_that_differ_from_page_to_page(tmp_path: Path) -> None:
    path = indexed(tmp_path / "a.tif", INDICES, [TINT, ANY, TINT])
    with open_stack(str(path)) as stack:
        np.testing.assert_array_equal(stack.read(2, 0, [0])[0], INDICES[2])
        with pytest.raises(FrameError, match="page 1 has a palette of colours, the first of val"):
            stack.read(1, 0, [0])


def test_a_palette_that_only_a_later_page_has(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(INDICES[0], photometric="minisblack", metadata=None)
        for page, table in zip(INDICES[1:], (ANY, TINT), strict=True):
            colormap = table.astype(np.uint16) * 257
            writer.write(page, photometric="palette", colormap=colormap, metadata=None)
    with open_stack(str(path)) as stack:
        for t in (0, 2):
            np.testing.assert_array_equal(stack.read(t, 0, [0])[0], INDICES[t])
        with pytest.raises(FrameError, match="page 1 has a palette, the first has none"):
            stack.read(1, 0, [0])


def test_palettes_of_a_microscope_are_for_display(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    colormap = ANY.astype(np.uint16) * 257
    tifffile.imwrite(
        path, INDICES, photometric="palette", colormap=colormap, metadata={"axes": "TYX"}
    )
    with check(path, INDICES, "TYX") as stack:
        assert "its palette is for display" in stack.info.unused[0]


def test_indices_without_a_palette_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, INDICES[0], photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages[0].tags["PhotometricInterpretation"].overwrite(INDEXED)
    with pytest.raises(StackError, match="has no palette that covers them"):
        open_stack(str(path))


def test_a_folder_of_indexed_pictures(tmp_path: Path) -> None:
    for i, page in enumerate(INDICES):
        indexed(tmp_path / f"t{i}.tif", page[None], [ANY])
    check(tmp_path, ANY[:, INDICES].swapaxes(0, 1), "TCYX").close()


def test_a_folder_of_indexed_tiffs_of_which_some_are_grey(tmp_path: Path) -> None:
    """Grey ones were set aside as unlike the first, where pages of one file and PNGs were not."""
    tables = [ANY, GREYS, TINT, ANY[:, ::-1]]
    pages = [*INDICES, INDICES[0]]
    for i, (page, table) in enumerate(zip(pages, tables, strict=True)):
        indexed(tmp_path / f"t{i}.tif", page[None], [table])
    colours = np.stack([t[:, i] for t, i in zip(tables, pages, strict=True)])
    with check(tmp_path, colours, "TCYX") as stack:
        for t in range(4):
            window = stack.read_window(t, 0, [2, 0], slice(3, 30), slice(2, 20))
            np.testing.assert_array_equal(window, colours[t, [2, 0], 3:30, 2:20])
    tifffile.imwrite(tmp_path / "t4.tif", INDICES[0], photometric="minisblack", metadata=None)
    with (
        open_stack(str(tmp_path)) as stack,
        pytest.raises(FrameError, match="is 40x50 uint8, but the first image is 3x40x50 uint8"),
    ):
        stack.read(4, 0, [0])


def test_a_folder_of_indexed_pngs_of_which_one_is_grey(tmp_path: Path) -> None:
    tables = [ANY, GREYS, ANY[:, ::-1]]
    for i, (page, table) in enumerate(zip(INDICES, tables, strict=True)):
        data = png(page, colour=INDEXED, palette=table.T.tobytes())
        (tmp_path / f"t{i}.png").write_bytes(data)
    colours = np.stack([t.T[i] for t, i in zip(tables, INDICES, strict=True)])
    check(tmp_path, colours, "TYXC").close()


@pytest.mark.parametrize(
    ("table", "trns", "axes"), [(ANY, b"", "YXC"), (GREYS, b"", "YX"), (GREYS, b"\0", "YXC")]
)
def test_a_png_of_greys_has_one_channel(
    tmp_path: Path, table: NDArray[Any], trns: bytes, axes: str
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(INDICES[0], colour=INDEXED, palette=table.T.tobytes(), trns=trns))
    pixels = table.T[INDICES[0]]
    if trns:  # its first colour is transparent
        alpha = np.where(INDICES[0] == 0, 0, 255).astype(np.uint8)
        pixels = np.concatenate([pixels, alpha[..., None]], axis=2)
    check(path, pixels[..., 0] if axes == "YX" else pixels, axes).close()
