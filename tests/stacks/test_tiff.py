from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import FrameError, StackError
from engine.stacks.base import READ_AS
from engine.stacks.open import open_stack
from tests.stacks.frames import all_frames, as_tzcyx, check, ramp


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float16", "float32"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_dtypes_and_byte_orders(
    tmp_path: Path, dtype: str, byteorder: str, compression: str | None
) -> None:
    pixels = ramp((5, 20, 30), dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, byteorder=byteorder, compression=compression)
    with check(path, pixels, "TYX") as stack:
        assert stack.info.dtype == READ_AS[dtype]
        assert stack.read(0, 0, [0]).dtype.isnative


@pytest.mark.parametrize("dtype", ["uint32", "int32", "uint64", "int64", "float64", "bool"])
def test_wide_dtypes(tmp_path: Path, dtype: str) -> None:
    pixels = ramp((2, 20, 30), dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack")
    check(path, pixels, "TYX").close()


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "lzw"},
        {"compression": "lzw", "predictor": True},
        {"compression": "zstd"},
        {"compression": "packbits"},
        {"compression": "lzma"},
        {"tile": (16, 16)},
        {"tile": (16, 16), "compression": "zlib"},
        {"rowsperstrip": 3},
        {"rowsperstrip": 3, "compression": "lzw"},
        {"bigtiff": True},
        {"bigtiff": True, "compression": "zlib", "byteorder": ">"},
        {"metadata": None},
        {"metadata": None, "compression": "lzw"},
        {"ome": True},
        {"ome": True, "bigtiff": True, "tile": (16, 32), "compression": "zlib"},
        {"imagej": True},
    ],
    ids=str,
)
def test_layouts(tmp_path: Path, options: dict[str, object]) -> None:
    pixels = ramp((5, 40, 50))
    path = tmp_path / ("a.ome.tif" if "ome" in options else "a.tif")
    if "ome" in options:
        options = {**options, "metadata": {"axes": "TYX"}}
    if "imagej" in options:
        options = {**options, "metadata": {"axes": "TYX"}}
    tifffile.imwrite(path, pixels, **options)  # type: ignore[arg-type]
    check(path, pixels, "TYX").close()


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "rgb"},
        {"metadata": {"axes": "TYXC"}, "photometric": "minisblack"},
        {"metadata": {"axes": "TYXS"}, "photometric": "rgb"},
        {"photometric": "minisblack"},
        {},
        {"photometric": "rgb", "compression": "zlib"},
        {"photometric": "minisblack", "compression": "zlib"},
        {"photometric": "rgb", "metadata": None},
        {"photometric": "rgb", "imagej": True, "metadata": {"axes": "TYXS"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_three_channels_last(tmp_path: Path, options: dict[str, object], dtype: str) -> None:
    if "imagej" in options:
        dtype = "uint8"  # ImageJ knows no 16-bit RGB
    pixels = ramp((4, 20, 30, 3), dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, **options)  # type: ignore[arg-type]
    stack = check(path, pixels, "TYXC")
    assert stack.info.axes == "TCYX"
    np.testing.assert_array_equal(stack.read(2, 0, [1])[0], pixels[2, :, :, 1])
    np.testing.assert_array_equal(stack.read(2, 0, [2, 0]), pixels[2, :, :, [2, 0]])
    stack.close()


def test_channels_last_without_the_shape_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = ramp((4, 20, 30, 3))
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata=None)
    with pytest.raises(StackError, match="80 pages of 30x3 pixels"):
        open_stack(str(path))
    check(path, pixels.reshape(80, 30, 3), "TYX", "TYX").close()


def test_planar_rgb(tmp_path: Path) -> None:
    pixels = ramp((4, 3, 20, 30), "uint8")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", planarconfig="separate", compression="zlib")
    check(path, pixels, "TCYX").close()


def test_imagej_hyperstack_and_its_calibration(tmp_path: Path) -> None:
    pixels = ramp((3, 2, 4, 20, 30))
    path = tmp_path / "a.tif"
    meta = {"axes": "TZCYX", "unit": "um", "spacing": 0.5, "finterval": 30.0}
    tifffile.imwrite(path, pixels, imagej=True, resolution=(4, 2), metadata=meta)
    with check(path, pixels, "TZCYX") as stack:
        assert stack.info.axes == "TCZYX"
        assert stack.info.pixel_size_um == {"Z": 0.5, "Y": 0.5, "X": 0.25}
        assert stack.info.time_step_s == 30.0


def test_ome_calibration_and_channel_names(tmp_path: Path) -> None:
    pixels = ramp((3, 2, 20, 30))
    path = tmp_path / "a.ome.tif"
    meta = {
        "axes": "TCYX",
        "PhysicalSizeX": 325,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.325,
        "PhysicalSizeYUnit": "µm",
        "TimeIncrement": 2,
        "TimeIncrementUnit": "min",
        "Channel": {"Name": ["DAPI", "GFP"]},
    }
    tifffile.imwrite(path, pixels, ome=True, metadata=meta)
    with check(path, pixels, "TCYX") as stack:
        assert stack.info.format == "OME-TIFF"
        assert stack.info.pixel_size_um == pytest.approx({"Y": 0.325, "X": 0.325})
        assert stack.info.time_step_s == 120
        assert stack.info.channel_names == ("DAPI", "GFP")


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lead=st.permutations("TCZ"), n=st.integers(0, 3), data=st.data())
def test_any_order_of_ome_axes(
    tmp_path: Path, lead: list[str], n: int, data: st.DataObject
) -> None:
    axes = "".join(lead[:n]) + "YX"
    shape = (*(data.draw(st.integers(2, 4)) for _ in range(n)), 8, 9)
    pixels = ramp(shape)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, pixels, ome=True, metadata={"axes": axes}, photometric="minisblack")
    check(path, pixels, axes).close()


def test_axes_given_by_the_user_win(tmp_path: Path) -> None:
    pixels = ramp((5, 20, 30))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels)
    for axes in ("ZYX", "CYX", "tyx", "TXY"):
        check(path, pixels, axes.upper(), axes).close()
    with pytest.raises(StackError, match="names 4 dimensions, but the stack has 3"):
        open_stack(str(path), "TCYX")
    with pytest.raises(StackError, match="are not valid"):
        open_stack(str(path), "TQX")


def test_ambiguous_axes_are_refused_with_the_choices(tmp_path: Path) -> None:
    pixels = ramp((5, 6, 20, 30))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels)
    with pytest.raises(StackError) as caught:
        open_stack(str(path))
    assert str(caught.value) == (
        f"{path}: has shape (5, 6, 20, 30) and no axes in its metadata: "
        "give --axes TCYX, --axes TZYX or --axes CZYX"
    )
    for axes in ("TCYX", "CTYX", "ZCYX"):
        check(path, pixels, axes, axes).close()


def test_thumbnail_never_wins(tmp_path: Path) -> None:
    pixels = ramp((4, 40, 50))
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(ramp((8, 9), "uint8"), metadata=None)
        for frame in pixels:
            writer.write(frame, metadata=None, contiguous=False, compression="zlib")
    check(path, pixels, "TYX").close()


def test_pyramid_level_0_is_read(tmp_path: Path) -> None:
    pixels = ramp((3, 64, 64))
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, subifds=1, metadata={"axes": "TYX"}, tile=(16, 16))
        writer.write(pixels[:, ::2, ::2], subfiletype=1, tile=(16, 16))
    check(path, pixels, "TYX").close()


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("n", [6, 20])
@pytest.mark.parametrize("odd", [(40, 45), (45, 50), (20, 25)])
def test_a_frame_of_another_shape_costs_that_frame(
    tmp_path: Path, compression: str | None, n: int, odd: tuple[int, int]
) -> None:
    pixels = ramp((n, 40, 50))
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for i, frame in enumerate(pixels):
            image = ramp(odd) if i == 3 else frame
            writer.write(image, metadata=None, contiguous=False, compression=compression)
    with open_stack(str(path)) as stack:
        assert stack.info.shape == (n, 40, 50)
        with pytest.raises(FrameError, match="shape"):
            stack.read(3, 0, [0])
        np.testing.assert_array_equal(stack.read(4, 0, [0])[0], pixels[4])


def test_ome_over_several_files(tmp_path: Path) -> None:
    pixels = ramp((4, 20, 30))
    names = [f"t{i}.ome.tif" for i in range(4)]
    planes = "".join(
        f'<TiffData FirstT="{i}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{name}">urn:uuid:0000000{i}</UUID></TiffData>'
        for i, name in enumerate(names)
    )
    for i, name in enumerate(names):
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:0000000{i}"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            'DimensionOrder="XYCZT" Type="uint16" SizeX="30" SizeY="20" SizeC="1" SizeZ="1" '
            f'SizeT="4"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}'
            "</Pixels></Image></OME>"
        )
        tifffile.imwrite(tmp_path / name, pixels[i], description=xml, metadata=None)
    check(tmp_path / names[0], pixels, "TYX").close()
    check(tmp_path, pixels, "TYX").close()  # as a folder: one frame per file
    (tmp_path / names[2]).unlink()
    with open_stack(str(tmp_path / names[0])) as stack:
        np.testing.assert_array_equal(stack.read(3, 0, [0])[0], pixels[3])
        with pytest.raises(FrameError, match="missing"):
            stack.read(2, 0, [0])


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_threads_read_the_same_frames(tmp_path: Path, compression: str | None) -> None:
    pixels = ramp((40, 64, 80))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, compression=compression)
    with open_stack(str(path)) as stack, ThreadPoolExecutor(8) as pool:
        order = list(np.random.default_rng(0).permutation(np.repeat(np.arange(40), 5)))
        for t, frame in zip(order, pool.map(lambda t: stack.read(t, 0, [0]), order), strict=True):
            np.testing.assert_array_equal(frame[0], pixels[t])


def test_closed_stacks_open_again_and_hold_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp((5, 20, 30)), compression="zlib")
    process = psutil.Process()
    before = process.num_fds() if hasattr(process, "num_fds") else 0
    stack = open_stack(str(path))
    assert not hasattr(process, "num_fds") or process.num_fds() == before
    first = stack.read(1, 0, [0])
    stack.close()
    assert not hasattr(process, "num_fds") or process.num_fds() == before
    np.testing.assert_array_equal(stack.read(1, 0, [0]), first)
    stack.close()


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_memory_does_not_grow_with_frames_read(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for i in range(5_000):
            frame = np.full((64, 64), i, np.uint16)
            writer.write(
                frame, metadata=None, contiguous=False, compression=compression, rowsperstrip=4
            )
    process = psutil.Process()
    with open_stack(str(path)) as stack:
        for t in range(500):
            stack.read(t, 0, [0])
        before = process.memory_info().rss
        for t in range(500, 5_000):
            assert stack.read(t, 0, [0])[0, 0, 0] == t
        assert process.memory_info().rss - before < 3_000_000


def test_identity_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp((5, 20, 30)))
    first = open_stack(str(path)).info
    assert open_stack(str(path)).info == first
    os.utime(path, ns=(0, 123_456_789))
    assert open_stack(str(path)).info.identity != first.identity


def test_indices_outside_the_stack(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp((5, 20, 30)))
    with open_stack(str(path)) as stack:
        assert as_tzcyx(all_frames(stack)[:, 0, 0], "TYX").shape == (5, 1, 1, 20, 30)
        for t, z, c in ((5, 0, 0), (-1, 0, 0), (0, 1, 0), (0, 0, 1)):
            with pytest.raises(FrameError, match="has no"):
                stack.read(t, z, [c])
