"""Files that other programs wrote, and files made to break readers."""

from __future__ import annotations

import collections
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from benchmarks import odd_files
from engine.errors import StackError
from engine.stacks.open import open_stack
from tests.stacks.frames import check

pytestmark = pytest.mark.realdata


@pytest.fixture
def data() -> Path:
    where = os.environ.get("STACKSEG_DATA")
    if not where:
        pytest.skip("STACKSEG_DATA is not set")
    return Path(where)


def test_hela_folder(data: Path) -> None:
    files = sorted((data / "hela/01").glob("*.tif"))
    with open_stack(str(data / "hela/01")) as stack:
        assert stack.info.shape == (92, 700, 1100)
        assert (stack.info.axes, stack.info.dtype) == ("TYX", "uint16")
        for t in (0, 10, 91):
            np.testing.assert_array_equal(stack.read(t, 0, [0])[0], tifffile.imread(files[t]))


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("xyz_8bit__chromosomes.tif", "ZYX"),
        ("xyzc_16bit__spots.tif", "CZYX"),
        ("xyc_16bit__nup_nuclei.tif", "CYX"),
        ("mitocheck-movie", "TYX"),
    ],
)
def test_neubias(data: Path, name: str, axes: str) -> None:
    path = data / "neubias/image_data" / name
    with open_stack(str(path)) as stack:
        assert stack.info.axes == axes


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_every_odd_file_reads_equal_or_is_refused(data: Path) -> None:
    paths = [path for _, path in odd_files.inputs(data)]
    rows = odd_files.survey(paths)
    counts = collections.Counter(row["result"] for row in rows)
    assert not [row for row in rows if row["result"] not in odd_files.GOOD]
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    assert counts["equal"] >= 370  # a reader that refuses everything passes no other test here


def test_ome_zarr_samples(data: Path) -> None:
    import zarr

    found = {"plate": 0, "image": 0}
    for store in sorted((data / "ome_zarr/tests").glob("*/*.zarr")):
        if "plate" in store.name:
            with pytest.raises(StackError, match=r"is a plate of \d+ wells?; give its fields"):
                open_stack(str(store))
            found["plate"] += 1
            store = next(store.glob("*/*/0"))
        with open_stack(str(store)) as stack:
            attributes = dict(zarr.open_group(str(store), mode="r").attrs)
            image = attributes.get("ome", attributes)["multiscales"][0]  # type: ignore[union-attr]
            level = str(store / str(image["datasets"][0]["path"]))
            array = zarr.open_array(level, mode="r")
            names = {4: "CZYX", 5: "TCZYX"}[array.ndim]
            check(store, np.asarray(array[...]), names).close()
            assert stack.info.axes == names
        found["image"] += 1
    assert found == {"plate": 2, "image": 4}
