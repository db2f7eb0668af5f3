"""Which images a TIFF file holds, which of them are stacks, and what is said of the rest."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from engine.errors import StackError
from engine.stacks.base import Stack
from engine.stacks.open import open_stack, open_stacks
from tests.stacks import ome
from tests.stacks.frames import all_frames, check, ramp
from tests.stacks.micromanager import write_mmstack, write_ndtiff

SIDES = (20, 30)
PLAIN = {"photometric": "minisblack", "metadata": None}


def numbered(*numbers: int, shape: tuple[int, int] = SIDES) -> NDArray[np.uint16]:
    """Frames that each hold their number, and a ramp that tells pixels apart."""
    base = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    return np.stack([base + np.uint16(1000 * n) for n in numbers])


def frames(stack: Stack) -> NDArray[Any]:
    """(T, Y, X) of a stack of one channel and one plane."""
    with stack:
        return all_frames(stack)[:, 0, 0]


def only(path: Path, series: str | None = None, axes: str | None = None) -> NDArray[Any]:
    return frames(open_stack(str(path), axes, series))


# -- frames written one by one -----------------------------------------------------------------


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
        {"contiguous": False},
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
    elif write is by_loop or "contiguous" not in options:
        write(path, pages, **options)
    else:
        pytest.skip("an option of the writer's loop")
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


# -- several images ----------------------------------------------------------------------------


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
    with pytest.raises(StackError, match="holds 3 stacks, and one is wanted"):
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


# -- metadata and pages that disagree ----------------------------------------------------------


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
            assert sentence and len(stack.absent_frames) == told - there
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
    with pytest.raises(StackError, match="count 2 planes, and the file has 3 pages"):
        open_stack(str(path))


# -- sets of files -----------------------------------------------------------------------------


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
        assert stack.absent_frames == {(1, 0)}
        assert "count 3 planes, and 2 of them are there (t1.ome.tif not found" in stack.info.lacking


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
        StackError, match=f"its metadata are in {companion}, which is not beside it"
    ):
        open_stack(str(files[1]))
    np.testing.assert_array_equal(only(files[1], "pages"), numbered(10, 11))


# -- Micro-Manager -----------------------------------------------------------------------------


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
        assert (
            "Micro-Manager metadata count 10 planes, and 3 of them are there" in stack.info.lacking
        )
        assert stack.absent_frames == {(t, 0) for t in range(3, 10)}


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


# -- 0 is white --------------------------------------------------------------------------------


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
        pytest.skip("tifffile writes no tiles of bits")
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


# -- alpha -------------------------------------------------------------------------------------


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
