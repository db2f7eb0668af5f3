"""Windows of frames: the same pixels as of the whole frame, without the whole frame."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import FrameError
from engine.stacks.base import Stack, StackInfo
from engine.stacks.open import open_stack
from tests.stacks.frames import ramp

Y, X = 50, 70


def tiff(axes: str, name: str = "a.tif", dtype: str = "uint16", **options: Any) -> Any:
    def make(folder: Path) -> tuple[Path, str | None]:
        sizes = {"T": 3, "C": 3, "Z": 2, "Y": Y, "X": X}
        pixels = ramp(tuple(sizes[a] for a in axes), dtype)
        photometric = "rgb" if axes.endswith("S") else "minisblack"
        settings: dict[str, Any] = {"photometric": photometric, "metadata": {"axes": axes}}
        tifffile.imwrite(folder / name, pixels, **(settings | options))
        return folder / name, None if axes != "YXT" else "YXT"

    return make


def interleaved(**options: Any) -> Any:
    def make(folder: Path) -> tuple[Path, str | None]:
        pixels = ramp((2, Y, X, 3), "uint8")
        tifffile.imwrite(folder / "a.tif", pixels, photometric="rgb", **options)
        return folder / "a.tif", None

    return make


def zarr_array(
    version: int,
    axes: str,
    dtype: str = "uint16",
    *,
    chunk: tuple[int, int] = (16, 32),
    **options: Any,
) -> Any:
    def make(folder: Path) -> tuple[Path, str | None]:
        sizes = {"T": 3, "C": 3, "Z": 2, "Y": Y, "X": X}
        pixels = ramp(tuple(sizes[a] for a in axes), np.dtype(dtype).name).astype(dtype)
        sides = {"T": 2, "C": 2, "Z": 1, "Y": chunk[0], "X": chunk[1]}
        array = zarr.create_array(
            str(folder / "a"),
            shape=pixels.shape,
            dtype=pixels.dtype,
            chunks=tuple(sides[a] for a in axes),
            zarr_format=version,  # type: ignore[arg-type]
            **options,
        )
        array[...] = pixels
        return folder / "a", axes

    return make


def images(suffix: str, shape: tuple[int, ...] = (Y, X), **options: Any) -> Any:
    def make(folder: Path) -> tuple[Path, str | None]:
        (folder / "f").mkdir()
        for i, pixels in enumerate(ramp((3, *shape), "uint8")):
            file = folder / "f" / f"{i}{suffix}"
            if suffix == ".png":
                file.write_bytes(imagecodecs.png_encode(pixels))
            else:
                photometric = "rgb" if len(shape) == 3 else "minisblack"
                tifffile.imwrite(file, pixels, photometric=photometric, **options)
        return folder / "f", None

    return make


# What is stored how: (writer, the piece that must be found in it).
STORED: dict[str, tuple[Callable[[Path], tuple[Path, str | None]], tuple[int, int] | None]] = {
    "contiguous": (tiff("TYX"), (1, X)),
    "contiguous CYX": (tiff("TCYX"), (1, X)),
    "contiguous, big-endian": (tiff("TYX", byteorder=">"), (1, X)),
    "contiguous, YXC": (interleaved(), (1, X)),
    "contiguous, YXT": (tiff("YXT"), (1, X)),
    "contiguous, float64": (tiff("TYX", dtype="float64"), (1, X)),
    "pages one by one": (tiff("TYX", metadata=None), (1, X)),
    "LZW strips": (tiff("TYX", compression="lzw", rowsperstrip=8), (8, X)),
    "LZW strips, predictor": (
        tiff("TYX", compression="lzw", predictor=True, rowsperstrip=7),
        (7, X),
    ),
    "one LZW strip": (tiff("TYX", compression="lzw", rowsperstrip=Y), None),
    "deflate tiles": (tiff("TYX", compression="zlib", tile=(16, 32)), (16, 32)),
    "unpacked tiles, big-endian": (tiff("TYX", byteorder=">", tile=(32, 16)), (32, 16)),
    "deflate tiles, big-endian": (
        tiff("TYX", byteorder=">", compression="zlib", tile=(32, 16)),
        (32, 16),
    ),
    "float tiles, predictor": (
        tiff("TYX", dtype="float32", compression="zlib", predictor=3, tile=(16, 16)),
        (16, 16),
    ),
    "int32 tiles": (tiff("TYX", dtype="int32", compression="zlib", tile=(16, 16)), (16, 16)),
    "one tile": (tiff("TYX", compression="zlib", tile=(64, 80)), None),
    "OME CYX tiles": (tiff("TCYX", "a.ome.tif", compression="zlib", tile=(16, 16)), (16, 16)),
    "OME TCZYX": (tiff("TCZYX", "a.ome.tif"), (1, X)),
    "YXC tiles": (interleaved(compression="zlib", tile=(16, 32)), (16, 32)),
    "YXC JPEG tiles": (interleaved(compression="jpeg", tile=(16, 32)), (16, 32)),
    "planar strips": (
        tiff("TCYX", compression="zlib", rowsperstrip=9, planarconfig="separate"),
        (9, X),
    ),
    "bilevel strips": (tiff("TYX", dtype="bool", rowsperstrip=8, compression="packbits"), (8, X)),
    "zarr v2": (zarr_array(2, "TCYX"), (16, 32)),
    "zarr v2, YXC, big-endian": (zarr_array(2, "YXC", ">u2"), (16, 32)),
    "zarr v3": (zarr_array(3, "TCZYX", "float64"), (16, 32)),
    "zarr v3, one chunk": (zarr_array(3, "TYX", chunk=(64, 128)), None),
    "zarr v3, shards": (zarr_array(3, "TYX", shards=(2, 32, 64)), (16, 32)),
    "folder of PNG": (images(".png"), None),
    "folder of colour PNG": (images(".png", (Y, X, 3)), None),
    "folder of TIFF": (images(".tif"), (1, X)),
    "folder of colour TIFF tiles": (
        images(".tif", (Y, X, 3), compression="zlib", tile=(16, 32)),
        (16, 32),
    ),
}


@pytest.mark.parametrize("name", STORED)
def test_windows_equal_the_cropped_frame(tmp_path: Path, name: str) -> None:
    make, piece = STORED[name]
    path, axes = make(tmp_path)
    with open_stack(str(path), axes) as stack:
        info = stack.info
        assert info.piece == piece

        @settings(max_examples=25)
        @given(st.data())
        def check(data: st.DataObject) -> None:
            t = data.draw(st.integers(0, info.size("T") - 1))
            z = data.draw(st.integers(0, info.size("Z") - 1))
            channels = data.draw(
                st.lists(st.integers(0, info.size("C") - 1), min_size=1, max_size=3, unique=True)
            )
            rows, columns = (
                slice(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))))
                for n in (info.size("Y"), info.size("X"))
            )
            window = stack.read_window(t, z, channels, rows, columns)
            expected = stack.read(t, z, channels)[:, rows, columns]
            assert window.dtype == expected.dtype == np.dtype(info.dtype)
            assert window.flags.c_contiguous and window.dtype.isnative
            np.testing.assert_array_equal(window, expected)

        check()
        whole = stack.read_window(0, 0, [0], slice(None), slice(None))
        np.testing.assert_array_equal(whole, stack.read(0, 0, [0]))
        np.testing.assert_array_equal(
            stack.read_window(0, 0, [0], slice(-10, None), slice(5)), whole[:, -10:, :5]
        )


@pytest.mark.parametrize("name", ["contiguous", "deflate tiles", "zarr v3", "folder of PNG"])
def test_what_is_no_window_of_the_stack(tmp_path: Path, name: str) -> None:
    path, axes = STORED[name][0](tmp_path)
    with open_stack(str(path), axes) as stack:
        for t, z, c in ((9, 0, 0), (0, 5, 0), (0, 0, 7)):
            with pytest.raises(FrameError, match="has no"):
                stack.read_window(t, z, [c], slice(0, 5), slice(0, 5))
        with pytest.raises(ValueError, match="no step"):
            stack.read_window(0, 0, [0], slice(0, 10, 2), slice(0, 5))


class Counting(Stack):
    """Counts the frames read; has no pieces."""

    def __init__(self) -> None:
        super().__init__(StackInfo("a", "TIFF", "TYX", (4, 20, 30), "uint16"))
        self.read_count = 0

    def read(self, t: int, z: int, channels: Any) -> Any:
        self.read_count += 1
        return ramp((1, 20, 30)) + t


def test_windows_of_a_frame_without_pieces_decode_it_once() -> None:
    stack = Counting()
    windows = [(slice(y, y + 7), slice(x, x + 5)) for y in range(0, 20, 7) for x in range(0, 30, 5)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda w: stack.read_window(1, 0, [0], *w), windows))
    assert stack.read_count == 1
    found[0][...] = 0  # the caller's own
    for window, pixels in zip(windows[1:], found[1:], strict=True):
        np.testing.assert_array_equal(pixels[0], (ramp((20, 30)) + 1)[window])
    assert stack.read_window(1, 0, [0], slice(0, 1), slice(1, 2))[0, 0, 0] == 2
    stack.read_window(2, 0, [0], slice(0, 1), slice(0, 1))
    assert stack.read_count == 2
    stack.close()
    stack.read_window(2, 0, [0], slice(0, 1), slice(0, 1))
    assert stack.read_count == 3


def _damage_last_tile(path: Path, page: int, how: str) -> None:
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[page].dataoffsets[-1], tif.pages[page].databytecounts[-1]
    if how == "cut off":
        os.truncate(path, offset + count // 2)
        return
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = b"\xa5" * count
    path.write_bytes(data)


@pytest.mark.parametrize("options", [{"tile": (16, 16)}, {"rowsperstrip": 16}], ids=str)
@pytest.mark.parametrize("how", ["damaged", "cut off"])
def test_damage_outside_the_window_does_not_matter(
    tmp_path: Path, options: dict[str, Any], how: str
) -> None:
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 60_000, (2, 64, 64), np.uint16)
    with tifffile.TiffWriter(path) as writer:  # directories first
        writer.write(pixels[:1], metadata=None, **options, compression="zlib")
        writer.write(pixels[1:], metadata=None, **options, compression="zlib")
    with open_stack(str(path)) as stack:
        if (
            how == "cut off"
            and tifffile.TiffFile(path).pages[1].offset
            > (tifffile.TiffFile(path).pages[1].dataoffsets[-1])
        ):
            pytest.skip("the directory lies behind the pixels")
        _damage_last_tile(path, 1, how)
        window = stack.read_window(1, 0, [0], slice(0, 40), slice(0, 40))
        np.testing.assert_array_equal(window[0], pixels[1, :40, :40])
        with pytest.raises(FrameError, match="frame t=1") as caught:
            stack.read_window(1, 0, [0], slice(30, 60), slice(30, 60))
        assert "\n" not in str(caught.value)
        with pytest.raises(FrameError):
            stack.read(1, 0, [0])


def test_contiguous_file_that_shrinks_while_it_is_open(tmp_path: Path) -> None:
    """Mapped into memory, this would kill the process."""
    path = tmp_path / "a.tif"
    pixels = ramp((4, 200, 300))
    tifffile.imwrite(path, pixels, photometric="minisblack")
    with open_stack(str(path)) as stack:
        os.truncate(path, path.stat().st_size - 100_000)
        window = stack.read_window(0, 0, [0], slice(50, 60), slice(5, 250))
        np.testing.assert_array_equal(window[0], pixels[0, 50:60, 5:250])
        with pytest.raises(FrameError, match="truncated"):
            stack.read_window(3, 0, [0], slice(190, 200), slice(0, 300))


def _huge_tiff(path: Path) -> None:
    """60,000 x 60,000 pixels, all of them background; only tiles on the diagonal are there."""

    def tiles() -> Any:
        for i in range(59 * 59):
            yield ramp((1024, 1024)) if i % 60 == 0 else None

    tifffile.imwrite(
        path,
        tiles(),
        shape=(60_000, 60_000),
        dtype=np.uint16,
        tile=(1024, 1024),
        compression="zlib",
        metadata=None,
    )


def _huge_raw(path: Path) -> None:
    """The same, unpacked: the file has a hole."""
    tifffile.imwrite(path, shape=(60_000, 60_000), dtype=np.uint16, bigtiff=True, metadata=None)


def _huge_zarr(path: Path) -> None:
    zarr.create_array(
        str(path), shape=(60_000, 60_000), dtype="uint16", chunks=(512, 512), shards=(2048, 2048)
    )


@pytest.mark.parametrize(
    ("make", "in_folder"), [(_huge_tiff, False), (_huge_tiff, True), (_huge_zarr, False)]
)
def test_a_window_of_a_huge_frame_takes_little_memory(
    tmp_path: Path, make: Callable[[Path], None], in_folder: bool
) -> None:
    path = tmp_path / "f" / "a.tif"
    path.parent.mkdir()
    make(path)
    tracemalloc.start()
    try:
        with open_stack(str(path.parent if in_folder else path)) as stack:
            stack.read_window(0, 0, [0], slice(30_000, 30_500), slice(59_000, 60_000))
            window = stack.read_window(0, 0, [0], slice(1000, 2000), slice(1000, 2000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64e6  # the frame has 7.2 GB
    if make is _huge_tiff:
        tile = ramp((1024, 1024))
        np.testing.assert_array_equal(window[0, :24, :24], tile[1000:, 1000:])
        np.testing.assert_array_equal(window[0, 24:, 24:], tile[:976, :976])
        assert not window[0, :24, 24:].any()


@pytest.mark.skipif(os.name != "posix", reason="needs files with holes")
def test_a_window_of_a_huge_unpacked_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    _huge_raw(path)
    tracemalloc.start()
    try:
        with open_stack(str(path)) as stack:
            window = stack.read_window(0, 0, [0], slice(59_000, 60_000), slice(100, 1100))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert window.shape == (1, 1000, 1000) and not window.any()
    assert peak < 16e6


SIDE = 1024

# Large enough that pixels outweigh parsing.
MEASURED: dict[str, tuple[str, dict[str, Any]]] = {
    "contiguous": ("YX", {}),
    "contiguous, float64": ("YX", {"dtype": "float64"}),
    "one LZW strip": ("YX", {"compression": "lzw", "rowsperstrip": SIDE}),
    "deflate strips": ("YX", {"compression": "zlib", "rowsperstrip": 64}),
    "deflate tiles": ("YX", {"compression": "zlib", "tile": (256, 256)}),
    "tiles of three pages": ("CYX", {"compression": "zlib", "tile": (256, 256)}),
    "tiles of colour": ("YXS", {"compression": "zlib", "tile": (256, 256)}),
    "palette": ("YX", {"dtype": "uint8", "photometric": "palette"}),
    "palette, tiles": ("YX", {"dtype": "uint8", "photometric": "palette", "tile": (256, 256)}),
    "zarr v2": ("YX", {"zarr": 2}),
    "zarr v3": ("CYX", {"zarr": 3}),
    "zarr v3, float64": ("YX", {"zarr": 3, "dtype": "float64"}),
    "zarr v3, one chunk": ("YX", {"zarr": 3, "chunk": SIDE}),
    "zarr shards": ("YX", {"zarr": 3, "shard": 512}),
    "PNG": ("YX", {"png": True}),
}


def _write_measured(folder: Path, axes: str, options: dict[str, Any]) -> Path:
    options = dict(options)
    sizes = {"Y": SIDE, "X": SIDE, "C": 3, "S": 3}
    dtype = options.pop("dtype", "uint16")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 4000, tuple(sizes[a] for a in axes)).astype(dtype)
    if "png" in options:
        (folder / "a.png").write_bytes(imagecodecs.png_encode(pixels))
        return folder / "a.png"
    if "zarr" not in options:
        options.setdefault("photometric", "rgb" if "S" in axes else "minisblack")
        if options["photometric"] == "palette":
            options["colormap"] = rng.integers(0, 2**16, (3, 256), np.uint16)
        tifffile.imwrite(folder / "a.tif", pixels, metadata={"axes": axes}, **options)
        return folder / "a.tif"
    side, shard = options.get("chunk", 256), options.get("shard")
    array = zarr.create_array(
        str(folder / "a"),
        shape=pixels.shape,
        dtype=dtype,
        chunks=(1,) * (len(axes) - 2) + (side, side),
        shards=(1,) * (len(axes) - 2) + (shard, shard) if shard else None,
        zarr_format=options["zarr"],
    )
    array[...] = pixels
    return folder / "a"


@pytest.mark.parametrize("size", [(700, 600), (SIDE, SIDE)])
@pytest.mark.parametrize("name", MEASURED)
def test_memory_of_a_window_is_foretold(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    axes, options = MEASURED[name]
    path = _write_measured(tmp_path, axes, options)
    with open_stack(str(path), axes.replace("S", "C")) as stack:
        channels = range(stack.info.size("C"))
        low = 150 if size[0] < SIDE else 0
        window = slice(low, low + size[0]), slice(low, low + size[1])
        stack.read_window(0, 0, channels, slice(0, 1), slice(0, 1))  # imports, files, caches
        stack.close()
        tracemalloc.start()
        try:
            stack.read_window(0, 0, channels, *window)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        foretold = stack.info.read_bytes(*size)
    assert 0.4 * foretold < peak < foretold + 400_000, f"{peak / foretold:.2f}"
