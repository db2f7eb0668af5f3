from __future__ import annotations

import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from engine.errors import FrameError, StackError
from engine.stacks.images.files import natural_key
from engine.stacks.open import open_stack
from tests.stacks.frames import check, ramp


def write(path: Path, pixels: np.ndarray) -> None:
    if path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, pixels, compression="lzw")
    else:
        path.write_bytes(imagecodecs.png_encode(pixels))


@pytest.mark.parametrize("suffix", [".tif", ".png"])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_folder_in_natural_order(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], dtype: str
) -> None:
    pixels = ramp((12, *shape), dtype)
    for i, frame in enumerate(pixels):
        write(tmp_path / f"t{i}{suffix}", frame)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._t0.tif").write_bytes(b"a Mac was here")
    stack = check(tmp_path, pixels, "TYXC" if len(shape) == 3 else "TYX")
    assert stack.info.format == "images"


def test_natural_key() -> None:
    names = ["t10", "t2", "T1", "a1b10", "a1b9", "t02", "10", "9", "x"]
    assert sorted(names, key=natural_key) == [
        "9",
        "10",
        "a1b9",
        "a1b10",
        "T1",
        "t02",
        "t2",
        "t10",
        "x",
    ]


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_one_png(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = ramp(shape)
    write(tmp_path / "a.png", pixels)
    check(tmp_path / "a.png", pixels, "YXC"[: len(shape)]).close()


def test_one_jpeg(tmp_path: Path) -> None:
    data = imagecodecs.jpeg_encode(ramp((20, 30, 3), "uint8"))
    (tmp_path / "a.jpg").write_bytes(data)
    check(tmp_path / "a.jpg", imagecodecs.jpeg_decode(data), "YXC").close()


def test_axes_of_a_folder(tmp_path: Path) -> None:
    pixels = ramp((3, 20, 30))
    for i, frame in enumerate(pixels):
        write(tmp_path / f"{i}.tif", frame)
    for axes in ("TYX", "ZYX", "CYX"):
        check(tmp_path, pixels, axes, axes)
    for axes in ("YX", "TCYX", "YXT"):
        with pytest.raises(StackError):
            open_stack(str(tmp_path), axes)


def test_one_stray_picture_beside_the_frames(tmp_path: Path) -> None:
    pixels = ramp((3, 20, 30))
    for i, frame in enumerate(pixels):
        write(tmp_path / f"{i}.{'tiff' if i % 2 else 'tif'}", frame)
    write(tmp_path / "overview.png", ramp((5, 6)))
    check(tmp_path, pixels, "TYX")
    write(tmp_path / "overview2.png", ramp((5, 6)))
    with pytest.raises(StackError, match="holds 2 PNG and 3 TIFF images"):
        open_stack(str(tmp_path))


@pytest.mark.parametrize(
    ("count", "words"),
    [(8, "2 of its 8 images have"), (150, "1 of the 100 images looked at has")],
)
@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_images_of_other_sizes_are_said_before_a_job(
    tmp_path: Path, suffix: str, count: int, words: str
) -> None:
    for i in range(count):
        pixels = ramp((20, 31) if i in (2, 4) else (20, 30), "uint8")  # of 150, 2 is not looked at
        if suffix == ".jpg":
            (tmp_path / f"{i}.jpg").write_bytes(imagecodecs.jpeg_encode(pixels))
        else:
            write(tmp_path / f"{i}{suffix}", pixels)
    (tmp_path / f"{count - 1}{suffix}").write_bytes(b"damaged: it is set aside as such")
    with open_stack(str(tmp_path)) as stack:
        (found,) = stack.companions()
    assert found.startswith(f"{words} another size than the first, 20x30 (such as ")
    assert f"{2 if count == 8 else 4}{suffix}, 20x31)" in found


def test_images_of_one_size_say_nothing(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.png", ramp((20, 30)))
    with open_stack(str(tmp_path)) as stack:
        assert stack.companions() == ()


def test_bad_files_in_a_folder_cost_their_frames(tmp_path: Path) -> None:
    pixels = ramp((6, 20, 30))
    for i, frame in enumerate(pixels):
        write(tmp_path / f"{i}.tif", frame)
    write(tmp_path / "1.tif", ramp((20, 31)))
    write(tmp_path / "2.tif", ramp((20, 30), "uint8"))
    (tmp_path / "3.tif").write_bytes(b"")
    data = (tmp_path / "4.tif").read_bytes()
    (tmp_path / "4.tif").write_bytes(data[: len(data) // 2])
    stack = open_stack(str(tmp_path))
    assert stack.info.shape == (6, 20, 30)
    for t in (0, 5):
        np.testing.assert_array_equal(stack.read(t, 0, [0])[0], pixels[t])
    for t in (1, 2, 3, 4):
        with pytest.raises(FrameError, match=f"{t}.tif") as caught:
            stack.read(t, 0, [0])
        assert "\n" not in str(caught.value)


def test_a_folder_of_stacks_is_refused(tmp_path: Path) -> None:
    for i in range(2):
        tifffile.imwrite(tmp_path / f"{i}.tif", ramp((5, 20, 30)))
    with pytest.raises(StackError, match="one by one"):
        open_stack(str(tmp_path))


def test_a_png_that_claims_gigabytes(tmp_path: Path) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 16, 6, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header
    (tmp_path / "a.png").write_bytes(data + struct.pack(">I", zlib.crc32(header)))
    with pytest.raises(StackError, match="damaged"):
        open_stack(str(tmp_path / "a.png"))


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("share", [0.02, 0.3])
def test_cut_off_pictures(tmp_path: Path, name: str, share: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    encode = imagecodecs.png_encode if name.endswith("png") else imagecodecs.jpeg_encode
    data = encode(pixels)
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(StackError) as caught:
        open_stack(str(tmp_path / name))
    assert "\n" not in str(caught.value)
