"""Sets of TIFF files that describe each other, and positions of the stage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from engine.errors import StackError
from engine.stacks.open import open_stack, open_stacks
from tests.stacks import ome
from tests.stacks.micromanager import write_mmstack, write_ndtiff
from tests.stacks.numbered import SIDES, absent_frames, frames, numbered, only

# -- sets of files --------------------------------------------------------------------------------


def positions(folder: Path, n_positions: int, n_times: int, *, root: bool = True) -> list[Path]:
    """A set as bioformats and Micro-Manager write it: every file describes all positions."""
    names = [f"x_Pos{p}.ome.tif" for p in range(n_positions)]
    sizes = {"T": n_times, "Y": SIDES[0], "X": SIDES[1]}
    images = [
        ome.image(p, sizes, [ome.plane(name, t, T=t) for t in range(n_times)], f"Pos{p}")
        for p, name in enumerate(names)
    ]
    for p, name in enumerate(names):
        pages = numbered(*range(10 * p, 10 * p + n_times))
        ome.write(folder / name, list(pages), ome.document(images, name if root else ""))
    return [folder / name for name in names]


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("n_times", [1, 2, 9])
@pytest.mark.parametrize("absent", [None, 0, 2])
def test_a_position_is_a_stack_of_its_own(
    tmp_path: Path, n_times: int, absent: int | None, root: bool
) -> None:
    files = positions(tmp_path, 3, n_times, root=root)
    if absent is not None:
        files[absent].unlink()
    for p, file in enumerate(files):
        if p != absent:
            np.testing.assert_array_equal(only(file), numbered(*range(10 * p, 10 * p + n_times)))


def test_a_position_under_another_file_name(tmp_path: Path) -> None:
    _, second = positions(tmp_path, 2, 3)
    second.rename(tmp_path / "treated.tif")
    np.testing.assert_array_equal(only(tmp_path / "treated.tif"), numbered(10, 11, 12))


def times(folder: Path, n: int) -> list[Path]:
    """A time-lapse of a file for each time point."""
    names = [f"t{t}.ome.tif" for t in range(n)]
    sizes = {"T": n, "Y": SIDES[0], "X": SIDES[1]}
    planes = [ome.plane(name, 0, T=t) for t, name in enumerate(names)]
    for t, name in enumerate(names):
        xml = ome.document([ome.image(0, sizes, planes)], name)
        ome.write(folder / name, [numbered(t)[0]], xml)
    return [folder / name for name in names]


def test_a_stack_over_several_files_has_one_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However its path is spelt."""
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    first = times(tmp_path / "d", 3)[0]
    monkeypatch.chdir(tmp_path)
    spellings = [str(first), "d/t0.ome.tif", "./d/../d/t0.ome.tif", "link/t0.ome.tif"]
    identities = {open_stack(path).info.identity for path in spellings}
    assert len(identities) == 1
    for path in spellings:
        np.testing.assert_array_equal(only(Path(path)), numbered(0, 1, 2))
    os.utime(tmp_path / "d" / "t1.ome.tif", ns=(0, 1))
    assert open_stack(str(first)).info.identity not in identities


def test_a_set_of_links(tmp_path: Path) -> None:
    """git-annex and DVC put files elsewhere, and links with their names in their place."""
    (tmp_path / "store").mkdir()
    (tmp_path / "d").mkdir()
    for i, file in enumerate(times(tmp_path, 3)):
        (tmp_path / "d" / file.name).symlink_to(tmp_path / "store" / f"key{i}")
        file.rename(tmp_path / "store" / f"key{i}")
    np.testing.assert_array_equal(only(tmp_path / "d" / "t0.ome.tif"), numbered(0, 1, 2))


def test_a_file_of_a_set_that_is_absent(tmp_path: Path) -> None:
    files = times(tmp_path, 3)
    files[1].unlink()
    with open_stack(str(files[0])) as stack:
        assert absent_frames(stack) == [1]
        assert "count 3 planes, but it has only 2 (t1.ome.tif not found" in stack.info.lacking


@pytest.mark.parametrize("companion", ["all.companion.ome", "x_Pos0.ome.tif"])
def test_files_whose_metadata_are_in_another(tmp_path: Path, companion: str) -> None:
    files = positions(tmp_path, 2, 2)
    if companion.endswith(".ome"):
        with tifffile.TiffFile(files[0]) as tif:
            (tmp_path / companion).write_text(tif.ome_metadata or "")
        ome.write(files[0], list(numbered(0, 1)), ome.binary_only(companion, files[0].name))
    ome.write(files[1], list(numbered(10, 11)), ome.binary_only(companion, files[1].name))
    np.testing.assert_array_equal(only(files[1]), numbered(10, 11))
    if companion.endswith(".ome"):
        np.testing.assert_array_equal(only(files[0]), numbered(0, 1))
    (tmp_path / companion).unlink()
    with pytest.raises(
        StackError, match=f"its metadata are in {companion}, which is not in its folder"
    ):
        open_stack(str(files[1]))
    np.testing.assert_array_equal(only(files[1], "pages"), numbered(10, 11))


# -- Micro-Manager --------------------------------------------------------------------------------


def mm_summary(**sizes: int) -> dict[str, Any]:
    return {"Channels": 1, "Slices": 1, "Frames": 1, "Positions": 1, "PixelSize_um": 0.5, **sizes}


@pytest.mark.parametrize("n_times", [1, 3])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_positions_of_micro_manager_in_one_file(
    tmp_path: Path, n_times: int, n_channels: int
) -> None:
    path = tmp_path / "x_MMStack.tif"
    images = {
        (c, 0, t, p): numbered(10 * p + 3 * t + c)[0]
        for t in range(n_times) for p in range(3) for c in range(n_channels)
    }  # fmt: skip
    write_mmstack(path, images, mm_summary(Frames=n_times, Channels=n_channels, Positions=3))
    stacks = open_stacks(str(path))
    assert len(stacks) == 3
    for p, stack in enumerate(stacks):
        with stack:
            assert stack.info.axes.replace("C", "").replace("T", "") == "YX"
            assert stack.info.pixel_size_um == {"Y": 0.5, "X": 0.5}
            for t in range(n_times):
                for c in range(n_channels):
                    found = stack.read(t, 0, [c])[0]
                    np.testing.assert_array_equal(found, images[c, 0, t, p])


@pytest.mark.parametrize("n_times", [1, 2])
@pytest.mark.parametrize("absent", [None, 0, 1])
def test_positions_of_micro_manager_in_files_of_their_own(
    tmp_path: Path, n_times: int, absent: int | None
) -> None:
    summary = mm_summary(Frames=n_times, Positions=2) | {"Prefix": "x"}
    files = [tmp_path / f"x_MMStack_Pos{p}.ome.tif" for p in range(2)]
    for p, file in enumerate(files):
        images = {(0, 0, t, p): numbered(10 * p + t)[0] for t in range(n_times)}
        write_mmstack(file, images, summary)
    if absent is not None:
        files[absent].unlink()
    for p, file in enumerate(files):
        if p != absent:
            np.testing.assert_array_equal(only(file), numbered(*range(10 * p, 10 * p + n_times)))


def test_an_acquisition_of_micro_manager_that_was_stopped(tmp_path: Path) -> None:
    path = tmp_path / "x_MMStack.tif"
    images = {(0, 0, t, 0): numbered(t)[0] for t in range(3)}
    write_mmstack(path, images, mm_summary(Frames=10))
    with open_stack(str(path)) as stack:
        assert "Micro-Manager metadata count 10 planes, but it has only 3" in stack.info.lacking
        assert absent_frames(stack) == list(range(3, 10))


@pytest.mark.parametrize("several", [True, False])
def test_positions_of_ndtiff(tmp_path: Path, several: bool) -> None:
    images = [
        ({"time": t, "position": p}, numbered(10 * p + t)[0]) for p in range(2) for t in range(3)
    ]
    files = {"a_NDTiffStack.tif": images[:3], "a_NDTiffStack_1.tif": images[3:]}
    write_ndtiff(tmp_path, files if several else {"a_NDTiffStack.tif": images})
    if several:
        np.testing.assert_array_equal(only(tmp_path / "a_NDTiffStack.tif"), numbered(0, 1, 2))
        np.testing.assert_array_equal(only(tmp_path / "a_NDTiffStack_1.tif"), numbered(10, 11, 12))
        return
    stacks = open_stacks(str(tmp_path / "a_NDTiffStack.tif"))
    for p, stack in enumerate(stacks):
        assert stack.info.pixel_size_um == {"Y": 0.5, "X": 0.5}
        np.testing.assert_array_equal(frames(stack), numbered(*range(10 * p, 10 * p + 3)))
    assert len(stacks) == 2
