"""Reports on label images, and on where the command is run; see `test_reports.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from engine.errors import StackError
from engine.results.score.compare import compare
from engine.results.score.table import hints
from engine.truth.ids import read_truth
from tests.truth.files import png, tiff

# -- truth --------------------------------------------------------------------------------------

IDS = np.zeros((64, 64), np.uint8)
for _i in range(12):
    _y, _x = _i // 6 * 10 + 2, _i % 6 * 10 + 2
    IDS[_y : _y + 6, _x : _x + 6] = _i + 1


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("jpeg2000", {"level": 30}), ("jpegxr", {"level": 50}), ("webp", {"level": 50}),
        ("lerc", {"level": 2}), ("jpegxl", {"level": 60}),
    ],
)  # fmt: skip
def test_ids_packed_with_loss_are_refused(tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    """girder/large_image#400, ZettaAI/zetta_utils#766: labels under a lossy codec."""
    pixels = np.dstack([IDS] * 3) if name == "webp" else IDS
    try:
        tiff(tmp_path / "a.tif", pixels, compression=name, compressionargs=how,
             photometric="rgb" if name == "webp" else "minisblack")  # fmt: skip
    except (imagecodecs.DelayedImportError, ValueError, RuntimeError) as error:
        pytest.skip(f"this imagecodecs does not write {name}: {error}")
    with pytest.raises(StackError, match="which may change ids;"):
        read_truth(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["zlib", "lzw", "zstd", "lzma", "packbits"])
def test_ids_packed_without_loss(tmp_path: Path, name: str) -> None:
    tiff(tmp_path / "a.tif", IDS, compression=name)
    np.testing.assert_array_equal(read_truth(tmp_path / "a.tif"), IDS)


def test_ids_in_reversible_jpeg2000(tmp_path: Path) -> None:
    """ome/bioformats#23: JPEG 2000 can lose nothing, and says so."""
    told = {"reversible": True, "level": 0}
    tiff(tmp_path / "a.tif", IDS, compression="jpeg2000", compressionargs=told)
    np.testing.assert_array_equal(read_truth(tmp_path / "a.tif"), IDS)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8])
@pytest.mark.parametrize("shown", [False, True])
def test_a_mask_in_which_0_is_white_is_refused(
    tmp_path: Path, dtype: type[Any], shown: bool
) -> None:
    """image-rs/image-tiff#296: ImageMagick's masks show foreground white, ImageJ's store it so."""
    mask = (IDS == 0) if shown else (IDS > 0)
    pixels = mask if dtype is np.bool_ else np.where(mask, 255, 0).astype(np.uint8)
    tiff(tmp_path / "a.tif", pixels, photometric="miniswhite")
    with pytest.raises(StackError, match="0 is white, so it is unclear which of its two values"):
        read_truth(tmp_path / "a.tif", masks=True)


def test_ids_in_which_0_is_white_are_ids(tmp_path: Path) -> None:
    tiff(tmp_path / "a.tif", IDS, photometric="miniswhite")
    np.testing.assert_array_equal(read_truth(tmp_path / "a.tif"), IDS)


def test_classes_in_place_of_objects_are_told(tmp_path: Path) -> None:
    """wkentaro/labelme#785, MouseLand/cellpose#446: SegmentationClass, where objects are wanted."""
    classes = np.where(IDS > 0, 1 + IDS % 2, 0).astype(np.uint8)
    palette = bytes([0, 0, 0, 128, 0, 0, 0, 128, 0])
    (tmp_path / "truth.png").write_bytes(png(classes, colour=3, palette=palette))
    tiff(tmp_path / "result.tif", IDS)
    told = " ".join(hints(compare(tmp_path / "result.tif", tmp_path / "truth.png")))
    assert "the truth has 2 ids and 12 separate pieces, so its numbers may be classes" in told
    tiff(tmp_path / "truth.tif", IDS)
    told = " ".join(hints(compare(tmp_path / "result.tif", tmp_path / "truth.tif")))
    assert "pieces" not in told


# -- where the command is run -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["numpy.py", "zarr.py", "dask/__init__.py"])
@pytest.mark.parametrize("command", [["stackseg"], [sys.executable, "-m", "engine"]], ids=len)
def test_a_module_named_like_a_library(tmp_path: Path, name: str, command: list[str]) -> None:
    """geekcomputers/Python#1440, numpy/numpy#20609: numpy.py in the folder one works in."""
    own = tmp_path / name
    own.parent.mkdir(exist_ok=True)
    own.write_text("raise SystemExit('the user\\'s own script ran')\n")
    if command[0] == "stackseg":
        command = [str(Path(sys.executable).with_name("stackseg"))]
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([".", root])
    done = subprocess.run(
        [*command, "--help"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"stackseg: {own} is found in place of the library"), done.stderr
    assert done.stderr.count("\n") == 1


def test_a_library_on_the_path_is_one(tmp_path: Path) -> None:
    """As modules of a cluster put them there."""
    from _stackseg import _is_library

    package = tmp_path / "numpy" / "__init__.py"
    package.parent.mkdir()
    package.write_text("")
    assert not _is_library(package)
    (tmp_path / "numpy-2.0.dist-info").mkdir()
    assert _is_library(package)
    assert _is_library(Path(np.__file__))
