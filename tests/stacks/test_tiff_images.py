"""Which images a TIFF file holds, which of them are stacks, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from engine.errors import StackError
from engine.stacks.open import open_stack, open_stacks
from tests.stacks import ome
from tests.stacks.frames import check, ramp
from tests.stacks.numbered import PLAIN, SIDES, absent_frames, frames, numbered, only

# -- frames written one by one --------------------------------------------------------------------


def by_append(path: Path, pages: NDArray[Any], **options: Any) -> None:
    for page in pages:
        tifffile.imwrite(path, page, append=True, **options)


def by_loop(path: Path, pages: NDArray[Any], **options: Any) -> None:
    with tifffile.TiffWriter(path) as writer:
        for page in pages:
            writer.write(page, **options)


def by_several_hands(path: Path, pages: NDArray[Any], **options: Any) -> None:
    """The first pages at once, the others later."""
    options = {"photometric": "minisblack", **options}  # three pages are no colour picture
    tifffile.imwrite(path, pages[:3], **options)
    by_append(path, pages[3:], **options)


@pytest.mark.parametrize("write", [by_append, by_loop, by_several_hands])
@pytest.mark.parametrize("n", [4, 5, 20])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"photometric": "minisblack"},
        {"compression": "zlib"},
        {"rowsperstrip": 7},
        {"metadata": None},
        {"tile": (16, 16), "compression": "lzw"},
        {"bigtiff": True},
    ],
    ids=str,
)
def test_frames_written_one_by_one(
    tmp_path: Path, write: Any, n: int, options: dict[str, Any]
) -> None:
    pages = numbered(*range(n))
    options = dict(options)
    path = tmp_path / "a.tif"
    if options.pop("bigtiff", False):
        with tifffile.TiffWriter(path, bigtiff=True) as writer:
            for page in pages:
                writer.write(page)
    else:
        write(path, pages, **options)
    with check(path, pages, "TYX") as stack:
        assert stack.info.unused == ()


@pytest.mark.parametrize("write", [by_append, by_loop])
def test_colour_frames_written_one_by_one(tmp_path: Path, write: Any) -> None:
    pixels = ramp((4, *SIDES, 3), "uint8")
    write(tmp_path / "a.tif", pixels, photometric="rgb")
    check(tmp_path / "a.tif", pixels, "TYXC").close()


def test_frames_that_are_stored_in_different_ways(tmp_path: Path) -> None:
    """Compression, strips and tiles are no order, and no reason to leave a frame out."""
    pages = numbered(*range(6))
    ways: list[dict[str, Any]] = [
        {}, {"compression": "zlib"}, {"rowsperstrip": 3}, {"tile": (16, 16)},
        {"compression": "lzw", "predictor": True}, {},
    ]  # fmt: skip
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page, how in zip(pages, ways, strict=True):
            writer.write(page, contiguous=False, **PLAIN, **how)
    with check(tmp_path / "a.tif", pages, "TYX") as stack:
        for t in range(6):
            window = stack.read_window(t, 0, [0], slice(3, 17), slice(5, 29))
            np.testing.assert_array_equal(window[0], pages[t, 3:17, 5:29])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("axes", ["ZYX", "CYX"])
def test_volumes_appended_are_time_points(
    tmp_path: Path, axes: str, compression: str | None
) -> None:
    pixels = ramp((3, 2, *SIDES))
    for volume in pixels:
        tifffile.imwrite(
            tmp_path / "a.tif", volume, append=True, compression=compression,
            photometric="minisblack", metadata={"axes": axes},
        )  # fmt: skip
    check(tmp_path / "a.tif", pixels, "T" + axes).close()


def test_volumes_appended_without_axes_are_refused_with_the_choices(tmp_path: Path) -> None:
    pixels = ramp((3, 2, *SIDES))
    for volume in pixels:
        tifffile.imwrite(tmp_path / "a.tif", volume, append=True, photometric="minisblack")
    with pytest.raises(StackError, match="give --axes TCYX, --axes TZYX or --axes CZYX"):
        open_stack(str(tmp_path / "a.tif"))
    check(tmp_path / "a.tif", pixels, "TZYX", "TZYX").close()
    np.testing.assert_array_equal(only(tmp_path / "a.tif", "pages"), pixels.reshape(6, *SIDES))


# -- several images -------------------------------------------------------------------------------


def test_equal_images_of_an_ome_tiff_are_stacks(tmp_path: Path) -> None:
    path = tmp_path / "scenes.ome.tif"
    scenes = [numbered(*range(n, n + 2)) for n in (0, 10, 20)]
    with tifffile.TiffWriter(path, ome=True) as writer:
        for i, scene in enumerate(scenes):
            writer.write(scene, photometric="minisblack", metadata={"axes": "TYX", "Name": f"s{i}"})
    stacks = open_stacks(str(path))
    assert [(s.info.series, s.info.series_name) for s in stacks] == [
        ("0", "s0"),
        ("1", "s1"),
        ("2", "s2"),
    ]
    for stack, scene in zip(stacks, scenes, strict=True):
        assert stack.info.unused == ()
        np.testing.assert_array_equal(frames(stack), scene)
    for choice in ("1", "s1"):
        np.testing.assert_array_equal(only(path, choice), scenes[1])
    with pytest.raises(StackError, match="holds 3 stacks, but one is needed"):
        open_stack(str(path))
    with pytest.raises(StackError, match="has no image s9; it has 0 \\(s0\\)"):
        open_stacks(str(path), series="s9")


def test_images_of_one_name_are_chosen_by_number(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for n in range(2):
            writer.write(
                numbered(n)[0], photometric="minisblack", metadata={"axes": "YX", "Name": "x"}
            )
    with pytest.raises(StackError, match="images 0, 1 are all called x; choose by number"):
        open_stacks(str(path), series="x")


def test_a_small_image_of_an_ome_tiff_is_named_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    slide, label = numbered(1), numbered(2, shape=(8, 9))
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(label[0], photometric="minisblack", metadata={"axes": "YX", "Name": "label"})
        writer.write(slide[0], photometric="minisblack", metadata={"axes": "YX", "Name": "slide"})
    with open_stack(str(path)) as stack:
        (said,) = stack.info.unused
        assert "1 image of the file is not read: 0 (label): 8 x 9 uint16" in said
        np.testing.assert_array_equal(frames(stack), slide)
    assert [s.info.size("Y") for s in open_stacks(str(path), series="all")] == [8, 20]


@pytest.mark.parametrize("metadata", [None, {}])
def test_pages_of_two_sizes(tmp_path: Path, metadata: Any) -> None:
    path = tmp_path / "a.tif"
    small, large = numbered(0, 1, 2, 3), numbered(4, 5, 6, shape=(40, 50))
    with tifffile.TiffWriter(path) as writer:
        for page in [*small, *large]:
            writer.write(page, photometric="minisblack", metadata=metadata)
    with open_stack(str(path)) as stack:
        (said,) = stack.info.unused
        assert "0: 4 x 20 x 30 uint16" in said and "--series" in said
        np.testing.assert_array_equal(frames(stack), large)
    np.testing.assert_array_equal(only(path, "0"), small)
    np.testing.assert_array_equal(only(path, "1"), large)


def test_a_thumbnail_and_a_sub_image_are_named(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in numbered(0, 1):
            writer.write(page, subifds=1, **PLAIN)
            writer.write(ramp((7, 9), "uint8"), **PLAIN)
    with open_stack(str(tmp_path / "a.tif")) as stack:
        assert any("7 x 9 uint8" in said for said in stack.info.unused)
        np.testing.assert_array_equal(frames(stack), numbered(0, 1))


def test_levels_of_a_pyramid_are_no_further_images(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    pixels = ramp((3, 64, 64))
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, subifds=1, metadata={"axes": "TYX"}, tile=(16, 16))
        writer.write(pixels[:, ::2, ::2], subfiletype=1, tile=(16, 16))
    with check(path, pixels, "TYX") as stack:
        assert stack.info.unused == ()


# -- metadata and pages that disagree -------------------------------------------------------------


def imagej(path: Path, pages: NDArray[np.uint16], told: int) -> None:
    description = f"ImageJ=1.54f\nimages={told}\nframes={told}\nhyperstack=true\n"
    with tifffile.TiffWriter(path) as writer:
        for i, page in enumerate(pages):
            writer.write(
                page, contiguous=False, description=description if i == 0 else None, **PLAIN
            )


def ome_xml(path: Path, pages: NDArray[np.uint16], told: int) -> None:
    sizes = {"T": told, "Y": SIDES[0], "X": SIDES[1]}
    ome.write(path, list(pages), ome.document([ome.image(0, sizes, ["<TiffData/>"])]))


def ome_planes(path: Path, pages: NDArray[np.uint16], told: int) -> None:
    sizes = {"T": told, "Y": SIDES[0], "X": SIDES[1]}
    planes = [ome.plane("", t, T=t) for t in range(told)]
    ome.write(path, list(pages), ome.document([ome.image(0, sizes, planes)]))


def shaped(path: Path, pages: NDArray[np.uint16], told: int) -> None:
    with tifffile.TiffWriter(path) as writer:
        for i, page in enumerate(pages):
            text = (
                f'{{"shape": [{told}, {SIDES[0]}, {SIDES[1]}], "axes": "TYX"}}' if i == 0 else None
            )
            writer.write(page, contiguous=False, description=text, **PLAIN)


@pytest.mark.parametrize("write", [imagej, ome_xml, ome_planes, shaped])
@pytest.mark.parametrize(("told", "there"), [(3, 5), (5, 3), (2, 12), (12, 2)])
def test_metadata_and_pages_that_disagree_are_refused_with_both_numbers(
    tmp_path: Path, write: Any, told: int, there: int
) -> None:
    path = tmp_path / "a.tif"
    pages = numbered(*range(there))
    write(path, pages, told)
    try:
        with open_stack(str(path)) as stack:
            sentence = stack.info.lacking
            assert sentence and absent_frames(stack) == list(range(there, told))
    except StackError as error:
        sentence = str(error)
    assert f"count {told} planes" in sentence and str(there) in sentence.replace(str(path), "")
    assert "--series pages" in sentence
    np.testing.assert_array_equal(only(path, "pages"), pages)


@pytest.mark.parametrize("write", [imagej, ome_xml, ome_planes])
def test_metadata_and_pages_that_agree(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "a.tif", numbered(*range(5)), 5)
    with check(tmp_path / "a.tif", numbered(*range(5)), "TYX") as stack:
        assert stack.info.lacking == "" and stack.info.unused == ()


def test_pages_may_be_planes(tmp_path: Path) -> None:
    imagej(tmp_path / "a.tif", numbered(*range(5)), 3)
    with open_stack(str(tmp_path / "a.tif"), "ZYX", "pages") as stack:
        assert stack.info.axes == "ZYX" and stack.info.shape == (5, *SIDES)


def test_a_directory_amid_the_pixels_of_a_virtual_stack(tmp_path: Path) -> None:
    """One directory may stand for many frames, but not where another lies among their pixels."""
    path = tmp_path / "a.tif"
    imagej(path, numbered(*range(3)), 3)
    data = path.read_bytes().replace(b"images=3\nframes=3", b"images=2\nframes=2")
    path.write_bytes(data)
    with pytest.raises(StackError, match="count 2 planes, but the file has 3 pages"):
        open_stack(str(path))
