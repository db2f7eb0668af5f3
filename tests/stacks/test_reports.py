"""Files and situations out of public reports, each built by hand.

`benchmarks/results/reports.md` lists the reports, and what came before and comes now.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from engine.errors import StackError
from engine.stacks.open import open_stack, open_stacks
from tests.stacks import by_hand, ome
from tests.stacks.by_hand import LONG, SHORT, page, text
from tests.stacks.frames import all_frames, check, ramp

SIDES = (20, 30)
PLAIN: dict[str, Any] = {"photometric": "minisblack", "metadata": None}
SIZES = {"Y": SIDES[0], "X": SIDES[1]}
PAGES_ARE_FRAMES = "--series pages to read every page as a frame"


def numbered(count: int, shape: tuple[int, int] = SIDES) -> NDArray[np.uint16]:
    """Frames that each hold their number, and a ramp that tells pixels apart."""
    base = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    return np.stack([base + np.uint16(1000 * n) for n in range(count)])


def ome_file(path: Path, count: int, images: list[str]) -> Path:
    ome.write(path, list(numbered(count)), ome.document(images))
    return path


def imagej(path: Path, pages: NDArray[Any], **told: object) -> Path:
    description = "ImageJ=1.54f\n" + "".join(f"{key}={value}\n" for key, value in told.items())
    with tifffile.TiffWriter(path) as writer:
        for i, one in enumerate(pages):
            first = description if i == 0 else None
            writer.write(one, contiguous=False, description=first, **PLAIN)
    return path


# -- OME metadata that say no order, or another than the pages have -----------------------------


@pytest.mark.parametrize(
    ("sizes", "n_images"),
    [({"T": 3, "C": 2}, 1), ({"T": 3}, 2), ({"Z": 6}, 1), ({"C": 6}, 1), ({"T": 2, "Z": 3}, 1)],
    ids=str,
)
def test_planes_without_a_page_are_not_taken_for_time_points(
    tmp_path: Path, sizes: dict[str, int], n_images: int
) -> None:
    """ome/bioformats#2949: Pixels without TiffData."""
    images = [ome.image(i, SIZES | sizes, []) for i in range(n_images)]
    path = ome_file(tmp_path / "a.ome.tif", 6, images)
    with pytest.raises(StackError, match=f"count 6 planes in {n_images} .*{PAGES_ARE_FRAMES}"):
        open_stack(str(path))
    np.testing.assert_array_equal(
        all_frames(open_stack(str(path), None, "pages"))[:, 0, 0], numbered(6)
    )


def test_one_time_lapse_needs_no_order(tmp_path: Path) -> None:
    """ome/bioformats#2949, of which the time points are the pages; sizes are read all the same."""
    sizes = 'PhysicalSizeX="0.5" PhysicalSizeY="0.25"'
    path = ome_file(tmp_path / "a.ome.tif", 6, [ome.image(0, SIZES | {"T": 6}, [], more=sizes)])
    with check(path, numbered(6), "TYX") as stack:
        assert stack.info.pixel_size_um == {"X": 0.5, "Y": 0.25}


@pytest.mark.parametrize("told", [5, 7])
def test_planes_without_a_page_are_counted(tmp_path: Path, told: int) -> None:
    path = ome_file(tmp_path / "a.ome.tif", 6, [ome.image(0, SIZES | {"T": told}, [])])
    with pytest.raises(StackError, match=f"count {told} planes, but the file has 6 pages"):
        open_stack(str(path))


def test_samples_that_are_no_channels(tmp_path: Path) -> None:
    """cgohlke/tifffile#65: SizeC without the samples, which tifffile cannot follow."""
    xml = ome.document([ome.image(0, SIZES | {"C": 2, "Z": 5}, ['<TiffData PlaneCount="10"/>'])])
    xml = xml.replace('SamplesPerPixel="1"', 'SamplesPerPixel="3"').replace("uint16", "uint8")
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=False) as writer:
        for i in range(10):
            writer.write(
                ramp((*SIDES, 3), "uint8"), photometric="rgb", metadata=None, contiguous=False,
                description=xml if i == 0 else None,
            )  # fmt: skip
    with pytest.raises(StackError, match="count 10 planes in 1 image, but do not say which"):
        open_stack(str(tmp_path / "a.ome.tif"))


def test_channels_of_different_samples_are_refused_with_a_way_out(tmp_path: Path) -> None:
    """AllenCellModeling/aicsimageio#206: samples are told for each channel."""
    xml = ome.document([ome.image(0, SIZES | {"C": 2, "T": 2}, ["<TiffData/>"])])
    xml = xml.replace('SamplesPerPixel="1"', 'SamplesPerPixel="3"', 1)
    ome.write(tmp_path / "a.ome.tif", list(numbered(4)), xml)
    with pytest.raises(StackError, match=f"make no sense .*{PAGES_ARE_FRAMES}"):
        open_stack(str(tmp_path / "a.ome.tif"))


def test_damaged_ome_xml_is_no_time_lapse(tmp_path: Path) -> None:
    """micro-manager/micro-manager#910: elements that are never closed."""
    xml = ome.document([ome.image(0, SIZES | {"T": 3, "C": 2}, ["<TiffData/>"])])
    for name, count in (("several", 6), ("one", 1)):
        path = tmp_path / f"{name}.tif"
        ome.write(path, list(numbered(count)), xml.replace("</Pixels>", ""))
        if count == 1:  # there is no order to be lost
            check(path, numbered(1), "TYX").close()
            continue
        with pytest.raises(StackError, match=r"order of its 6 pages, cannot be read"):
            open_stack(str(path))


@pytest.mark.parametrize(
    ("planes", "found"),
    [
        ([ome.plane("", t, T=t + 1) for t in range(3)], 3),  # counted from 1
        ([ome.plane("", 0, T=t) for t in range(3)], 3),  # one page for all of them
        ([ome.plane("", 0, T=0)], 3),
    ],
    ids=["from one", "same page", "first alone"],
)
def test_pages_are_counted_as_they_are(tmp_path: Path, planes: list[str], found: int) -> None:
    """ome/bioformats#3262 and imports cropped by ImageJ: TiffData that leave pages out."""
    path = ome_file(tmp_path / "a.ome.tif", 3, [ome.image(0, SIZES | {"T": 3}, planes)])
    with pytest.raises(StackError, match=f"count 3 planes, but the file has {found} pages"):
        open_stack(str(path))


@pytest.mark.parametrize("order", ["XYZCT", "XYTZC", "XYCTZ"])
def test_order_of_dimensions(tmp_path: Path, order: str) -> None:
    """tlnagy/OMETIFF.jl#94: an image of several dimensions by DimensionOrder."""
    sizes = {"C": 2, "T": 3}
    xml = ome.document([ome.image(0, SIZES | sizes, ["<TiffData/>"])]).replace("XYZCT", order)
    ome.write(tmp_path / "a.ome.tif", list(numbered(6)), xml)
    lead = "".join(a for a in reversed(order[2:]) if a in sizes)
    pixels = numbered(6).reshape([sizes[a] for a in lead] + list(SIDES))
    check(tmp_path / "a.ome.tif", pixels, lead + "YX").close()


def test_the_type_of_pixels_is_that_of_the_pages(tmp_path: Path) -> None:
    """ome/bioformats#1384: int8 in the metadata, uint8 in the file."""
    xml = ome.document([ome.image(0, SIZES | {"T": 3}, ["<TiffData/>"])])
    ome.write(tmp_path / "a.ome.tif", list(numbered(3)), xml.replace("uint16", "int16"))
    check(tmp_path / "a.ome.tif", numbered(3), "TYX").close()


@pytest.mark.parametrize("root", ["old.ome.tif", ""])
def test_a_renamed_file_keeps_its_order(tmp_path: Path, root: str) -> None:
    """tlnagy/OMETIFF.jl#14: a file that calls itself by an old name, with and without a UUID."""
    planes = [ome.plane("old.ome.tif", 2 * t + c, T=t, C=c) for t in range(3) for c in range(2)]
    xml = ome.document([ome.image(0, SIZES | {"T": 3, "C": 2}, planes)], root)
    ome.write(tmp_path / "new.ome.tif", list(numbered(6)), xml)
    check(tmp_path / "new.ome.tif", numbered(6).reshape(3, 2, *SIDES), "TCYX").close()


@pytest.mark.parametrize("root", ["old.ome.tif", ""])
def test_a_renamed_file_of_two_images(tmp_path: Path, root: str) -> None:
    planes = [[ome.plane("old.ome.tif", 3 * i + t, T=t) for t in range(3)] for i in range(2)]
    images = [ome.image(i, SIZES | {"T": 3}, planes[i]) for i in range(2)]
    ome.write(tmp_path / "new.ome.tif", list(numbered(6)), ome.document(images, root))
    for stack, right in zip(
        open_stacks(str(tmp_path / "new.ome.tif")), np.split(numbered(6), 2), strict=True
    ):
        np.testing.assert_array_equal(all_frames(stack)[:, 0, 0], right)


def test_a_file_of_a_set_is_not_taken_for_a_renamed_one(tmp_path: Path) -> None:
    """Its planes lie in another file, which is absent, and its pages are of nothing."""
    planes = [ome.plane("other.ome.tif", t, T=t) for t in range(3)]
    ome.write(
        tmp_path / "a.ome.tif",
        list(numbered(2)),
        ome.document([ome.image(0, SIZES | {"T": 3}, planes)]),
    )
    with pytest.raises(StackError, match="count 3 planes, but the file has 2 pages"):
        open_stack(str(tmp_path / "a.ome.tif"))


# -- ImageJ and ScanImage -----------------------------------------------------------------------


def test_a_hyperstack_with_fewer_pages_than_told(tmp_path: Path) -> None:
    """DylanMuir/TIFFStack#30: the second file of a recording that was split."""
    path = imagej(tmp_path / "a.tif", numbered(6), images=6, channels=2, slices=2, frames=2)
    with pytest.raises(StackError, match="count 8 planes, but the file has 6 pages"):
        open_stack(str(path))


def test_a_hyperstack_of_one_directory_that_is_cut_off(tmp_path: Path) -> None:
    """cgohlke/tifffile#6 and MouseLand/suite2p#135: all pixels behind one directory."""
    path = imagej(tmp_path / "a.tif", numbered(1), images=6, channels=3, slices=2, mode="grayscale")
    with path.open("ab") as file:
        file.write(numbered(6)[1:].astype("<u2").tobytes())
    check(path, numbered(6).reshape(2, 3, *SIDES), "ZCYX").close()
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(StackError, match="promise more frames than can be found"):
        open_stack(str(path))


def test_a_volume_with_channels(tmp_path: Path) -> None:
    """imageio/imageio#226: (53, 3, 320, 512) came as (159, 320, 512)."""
    path = imagej(
        tmp_path / "a.tif", numbered(6), images=6, channels=3, slices=2, hyperstack="true"
    )
    check(path, numbered(6).reshape(2, 3, *SIDES), "ZCYX").close()


def test_a_picture_of_rows_is_asked_about(tmp_path: Path) -> None:
    """imageio/imageio#849: an RGB picture written as one page for each of its rows."""
    tifffile.imwrite(tmp_path / "a.tif", ramp((20, 30, 3), "uint8"), **PLAIN)
    with pytest.raises(StackError, match="has 20 pages of 30x3 pixels, probably channels last"):
        open_stack(str(tmp_path / "a.tif"))


SCANIMAGE = {
    "2018": ("SI.VERSION_MAJOR = 2018\nSI.hChannels.channelSave = [1;2]\n", "Software"),
    "5": ("frame = 1\nscanimage.SI5.channelsSave = [1;4]\nscanimage.SI5.x = 1\n", "Description"),
    "3.8": ("state.software.version=3.8\rstate.acq.numberOfChannelsSave=2\r", "Description"),
}


@pytest.mark.parametrize("version", SCANIMAGE)
def test_channels_of_scanimage_are_no_frames(tmp_path: Path, version: str) -> None:
    """flatironinstitute/CaImAn#1393: channel 1 on odd pages, channel 2 on even ones."""
    content, where = SCANIMAGE[version]
    tag = 305 if where == "Software" else 270
    for count in (6, 5):
        path = tmp_path / f"{count}.tif"
        by_hand.write(path, [page(one, {tag: text(content)}) for one in numbered(count)])
    check(tmp_path / "6.tif", numbered(6).reshape(3, 2, *SIDES), "TCYX").close()
    with pytest.raises(StackError, match="count 2 channels to a frame, and the file has 5 pages"):
        open_stack(str(tmp_path / "5.tif"))


def test_one_channel_of_scanimage(tmp_path: Path) -> None:
    content = SCANIMAGE["2018"][0].replace("[1;2]", "2")
    by_hand.write(tmp_path / "a.tif", [page(one, {305: text(content)}) for one in numbered(4)])
    check(tmp_path / "a.tif", numbered(4), "TYX").close()


@pytest.mark.parametrize("shape", ['"round"', '{"y": 20}', "null", "[20.5, 30]"])
def test_a_description_in_json_of_another_program(tmp_path: Path, shape: str) -> None:
    """AllenCellModeling/napari-aicsimageio#39: what has a "shape" is taken for tifffile's own."""
    told = text(f'{{"exposure": 10, "shape": {shape}}}')
    by_hand.write(tmp_path / "a.tif", [page(one, {270: told}) for one in numbered(3)])
    check(tmp_path / "a.tif", numbered(3), "TYX").close()


def lsm(path: Path, told: int, there: int) -> Path:
    """A Zeiss LSM of `there` planes, each followed by its thumbnail; its header counts `told`."""
    header = np.zeros(1, np.dtype(list(tifffile.TIFF.CZ_LSMINFO)))  # type: ignore[arg-type]
    header["MagicNumber"], header["StructureSize"] = 0x0400494C, header.itemsize
    header["DimensionX"], header["DimensionY"], header["DimensionZ"] = *SIDES[::-1], told
    header["DimensionChannels"] = header["DimensionTime"] = 1
    header["DataType"] = 2
    pages = []
    for i, one in enumerate(numbered(there)):
        pages.append(page(one, {34412: (by_hand.BYTE, header.tobytes())} if i == 0 else {}))
        small = {254: (LONG, 1), 258: (SHORT, [8] * 3), 262: (SHORT, 2), 277: (SHORT, 3)}
        pages.append(by_hand.Page(8, 8, bytes(192), tags=small))
    return by_hand.write(path, pages)


def test_thumbnails_of_an_lsm_are_no_planes(tmp_path: Path) -> None:
    """soft-matter/pims#93: planes in every second directory."""
    with check(lsm(tmp_path / "a.lsm", 3, 3), numbered(3), "ZYX") as stack:
        assert ["3 x 8 x 8 x 3 uint8" in said for said in stack.info.unused] == [True]
    with open_stack(str(lsm(tmp_path / "b.lsm", 3, 2))) as stack:
        assert "count 3 planes, but it has only 2" in stack.info.lacking
    with pytest.raises(StackError, match="count 2 planes, but the file has 3 pages"):
        open_stack(str(lsm(tmp_path / "c.lsm", 2, 3)))


# -- pages and values ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["same type", "one bit"])
@pytest.mark.parametrize("kind", [4, 5, 6])
def test_a_transparency_mask_is_no_frame(tmp_path: Path, how: str, kind: int) -> None:
    """xarray-contrib/xarray-spatial#1504: masks among the pages, as GDAL writes them."""
    frames, says = numbered(2), {254: (LONG, kind)}
    mask = frames[0] % 2
    masked = page(mask, says) if how == "same type" else by_hand.packed(mask, 1, says)
    by_hand.write(tmp_path / "a.tif", [page(frames[0]), masked, page(frames[1]), masked])
    with check(tmp_path / "a.tif", frames, "TYX") as stack:
        (said,) = stack.info.unused
        assert "1 image of the file is not read: 1 (mask): 2 x 20 x 30" in said
    (found,) = open_stacks(str(tmp_path / "a.tif"), series="mask")
    np.testing.assert_array_equal(all_frames(found)[:, 0, 0], [mask, mask])


def test_masks_outnumber_no_frames(tmp_path: Path) -> None:
    frames = numbered(3)
    says = {254: (LONG, 4)}
    by_hand.write(
        tmp_path / "a.tif", [page(frames[0]), page(frames[1], says), page(frames[2], says)]
    )
    check(tmp_path / "a.tif", frames[:1], "TYX").close()


def test_pages_of_a_document_are_frames(tmp_path: Path) -> None:
    says = {254: (LONG, 2)}
    by_hand.write(tmp_path / "a.tif", [page(one, says) for one in numbered(3)])
    check(tmp_path / "a.tif", numbered(3), "TYX").close()


def test_without_a_photometric_tag_values_are_as_written(tmp_path: Path) -> None:
    """photopea/UTIF.js#85: a missing tag was taken for "0 is white"."""
    pages = [page(one, {262: None}) for one in numbered(2)]
    with check(by_hand.write(tmp_path / "a.tif", pages), numbered(2), "TYX") as stack:
        assert not stack.info.min_is_white
    said = [page(one, {262: (SHORT, 0)}) for one in numbered(2)]
    with check(by_hand.write(tmp_path / "b.tif", said), ~numbered(2), "TYX") as stack:
        assert stack.info.min_is_white


@pytest.mark.parametrize("bits", [2, 4, 10, 12, 14])
@pytest.mark.parametrize("width", [30, 29])
@pytest.mark.parametrize("white", [False, True])
def test_packed_bits(tmp_path: Path, bits: int, width: int, white: bool) -> None:
    """python-pillow/Pillow#414, libvips/libvips#292: 12 bits a pixel, without gaps."""
    pixels = (numbered(1)[0] * 7 % 2**bits)[:, :width]
    says = {262: (SHORT, 0 if white else 1)}
    by_hand.write(tmp_path / "a.tif", [by_hand.packed(pixels, bits, says)])
    right = 2**bits - 1 - pixels if white else pixels
    with open_stack(str(tmp_path / "a.tif")) as stack:
        np.testing.assert_array_equal(stack.read(0, 0, [0])[0], right)
        window = stack.read_window(0, 0, [0], slice(3, 9), slice(5, 20))
        np.testing.assert_array_equal(window[0], right[3:9, 5:20])


@pytest.mark.parametrize("space", [6, 8, 9, 10])
@pytest.mark.parametrize("compression", [1, 8])
def test_colours_that_are_no_intensities_are_refused(
    tmp_path: Path, space: int, compression: int
) -> None:
    """python-pillow/Pillow#9779 and #1270: Y, Cb and Cr shown as red, green and blue."""
    import zlib

    pixels = ramp((*SIDES, 3), "uint8")
    data = pixels.tobytes() if compression == 1 else zlib.compress(pixels.tobytes())
    tags: dict[int, Any] = {
        258: (SHORT, [8, 8, 8]), 259: (SHORT, compression), 262: (SHORT, space),
        277: (SHORT, 3), 530: (SHORT, [1, 1]),
    }  # fmt: skip
    by_hand.write(tmp_path / "a.tif", [by_hand.Page(SIDES[1], SIDES[0], data, tags=tags)])
    with pytest.raises(StackError, match="which are not intensities; convert it to red, green"):
        open_stack(str(tmp_path / "a.tif"))


def test_colours_in_jpeg_are_turned_into_red_green_blue(tmp_path: Path) -> None:
    """cgohlke/tifffile#146: RGB is stored as YCbCr within JPEG."""
    pixels = np.full((32, 32, 3), (200, 30, 30), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", compression="jpeg")
    with open_stack(str(tmp_path / "a.tif")) as stack:
        found = stack.read(0, 0, range(3)).astype(int)
    assert np.abs(found - [[[200]], [[30]], [[30]]]).max() <= 2


@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_inks_are_said(tmp_path: Path, suffix: str) -> None:
    """SixLabors/ImageSharp#2454: CMYK is no red, green, blue and alpha."""
    from PIL import Image

    Image.fromarray(ramp((*SIDES, 4), "uint8"), "CMYK").save(tmp_path / f"a.{suffix}")
    with open_stack(str(tmp_path / f"a.{suffix}")) as stack:
        assert stack.info.size("C") == 4
        assert any("inks (CMYK)" in said for said in stack.info.unused)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_frames_of_an_animation_are_said(tmp_path: Path, count: int) -> None:
    """imageio/imageio#172: of an animated PNG, as of any PNG, one frame is read."""
    from PIL import Image

    frames = [Image.fromarray(np.full(SIDES, 50 * i, np.uint8)) for i in range(count)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with open_stack(str(tmp_path / "a.png")) as stack:
        said = " ".join(stack.info.unused)
    assert (f"read, {count - 1} more" in said) == (count > 1) and ("animation" in said) == (
        count > 1
    )


# -- Zarr ---------------------------------------------------------------------------------------

AXES = [
    {"name": "t", "type": "time", "unit": "second"},
    {"name": "y", "type": "space", "unit": "micrometer"},
    {"name": "x", "type": "space", "unit": "micrometer"},
]


def scale(*values: float) -> list[dict[str, Any]]:
    return [{"type": "scale", "scale": list(values)}]


@pytest.mark.parametrize("version", [2, 3])
def test_the_largest_level_is_read_whatever_their_order(tmp_path: Path, version: Any) -> None:
    """ome/ngff#151, ome-zarr-models/ome-zarr-models-py#72: levels from the smallest up."""
    pixels = numbered(3)
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=version)
    levels = []
    for path, step in (("s2", 4), ("s1", 2), ("s0", 1)):
        group.create_array(path, data=pixels[:, ::step, ::step])
        levels.append({"path": path, "coordinateTransformations": scale(2, 0.5 * step, 0.5 * step)})
    said = {"multiscales": [{"version": "0.4", "axes": AXES, "datasets": levels}]}
    group.attrs.update(said if version == 2 else {"ome": said})
    with check(tmp_path / "a.zarr", pixels, "TYX") as stack:
        assert stack.info.pixel_size_um == {"Y": 0.5, "X": 0.5} and stack.info.unused == ()


def test_a_level_takes_no_lost_one_s_place(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    group.create_array("1", data=numbered(3)[:, ::2, ::2])
    levels = [{"path": "0"}, {"path": "1"}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": AXES, "datasets": levels}]
    with pytest.raises(StackError, match="names 0 as its pixels, which is not there"):
        open_stack(str(tmp_path / "a.zarr"))


def test_scales_of_a_level_and_of_all(tmp_path: Path) -> None:
    """ome/napari-ome-zarr#73: coordinateTransformations on the multiscales itself."""
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    group.create_array("0", data=numbered(3))
    level = {"path": "0", "coordinateTransformations": scale(1, 0.1, 0.1)}
    whole = {"version": "0.4", "axes": AXES, "datasets": [level]}
    group.attrs["multiscales"] = [whole | {"coordinateTransformations": scale(5, 2, 2)}]
    with check(tmp_path / "a.zarr", numbered(3), "TYX") as stack:
        assert stack.info.pixel_size_um == pytest.approx({"Y": 0.2, "X": 0.2})
        assert stack.info.time_step_s == 5


@pytest.mark.parametrize("version", [2, 3])
def test_consolidated_metadata_may_be_stale(tmp_path: Path, version: Any) -> None:
    """zarr-developers/zarr-python#2921, JuliaIO/Zarr.jl#342: frames appended afterwards."""
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=version)
    group.create_array("0", data=numbered(3), chunks=(1, *SIDES))
    zarr.consolidate_metadata(tmp_path / "a.zarr")
    array = zarr.open_array(tmp_path / "a.zarr" / "0")
    array.resize((4, *SIDES))
    array[3] = numbered(4)[3]
    check(tmp_path / "a.zarr", numbered(4), "TYX", "TYX").close()


@pytest.mark.parametrize("fill", [7, None])
def test_chunks_of_a_fill_value_are_counted(tmp_path: Path, fill: int | None) -> None:
    """JuliaIO/Zarr.jl#97, zarr-developers/zarr-python#486: what isn't there reads as something."""
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(3, *SIDES), dtype="u2", chunks=(1, *SIDES), fill_value=7,
        zarr_format=2,
    )  # fmt: skip
    array[:2] = numbered(2)
    file = tmp_path / "a.zarr" / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"fill_value": fill}))
    with open_stack(str(tmp_path / "a.zarr"), "TYX") as stack:
        assert [stack.missing_chunks(t, 0, [0]) for t in range(3)] == [0, 0, 1]


def test_a_bigtiff_with_masks(tmp_path: Path) -> None:
    """The tag is found in 20-byte entries as well, and in either byte order."""
    from engine.stacks.tiff.chain import check_chain

    for order in "<>":
        path = tmp_path / f"{ord(order)}.tif"
        with tifffile.TiffWriter(path, bigtiff=True, byteorder=order) as writer:  # type: ignore[arg-type]
            for one in numbered(3):
                writer.write(one, contiguous=False, subfiletype=2, **PLAIN)
        data = bytearray(path.read_bytes())
        second = check_chain(str(path)).offsets[1]
        struct.pack_into(order + "I", data, second + 8 + 12, 4)
        path.write_bytes(bytes(data))
        assert check_chain(str(path)).masks == {second}
        check(path, numbered(3)[::2], "TYX").close()
