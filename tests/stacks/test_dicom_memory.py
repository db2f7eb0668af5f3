"""What decoding a frame takes, against what the plan is told of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from tests.stacks.dicoms import at, dataset, write

pytest.importorskip("pydicom")
SIDE = 1500  # px

MEASURE = """
import ctypes, sys
from pathlib import Path
from engine.stacks.open import open_stack

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

stack = open_stack(sys.argv[1])  # loads what decodes
info = stack.info
channels = range(info.size("C"))
stack.read(0, 0, channels)
ctypes.CDLL(None).malloc_trim(0)
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
frame = stack.read(0, 0, channels)
print(status("VmHWM") - before, info.read_bytes(info.size("Y"), info.size("X")))
"""


def encoded(path: Path, syntax: str, stream: bytes, pixels: Any, **elements: Any) -> None:
    from pydicom import uid
    from pydicom.encaps import encapsulate

    ds = dataset(pixels, **elements)
    ds.file_meta.TransferSyntaxUID = getattr(uid, syntax)
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].VR = "OB"
    ds.save_as(path, enforce_file_format=True)


def make(kind: str, path: Path) -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 4096, (SIDE, SIDE)).astype("uint16")
    rgb = rng.integers(0, 256, (SIDE, SIDE, 3)).astype("uint8")
    if kind == "padded":
        dim = (grey % 200).astype("uint8")  # of small pixels the masks are most
        dim[: SIDE // 2] = 255
        write(path, dim, **at(0), PixelPaddingValue=255)
    elif kind == "plain":
        write(path, grey, **at(0), BitsStored=12, RescaleSlope=1, RescaleIntercept=-1024)
    elif kind == "JPEG 2000":
        encoded(path, "JPEG2000Lossless", imagecodecs.jpeg2k_encode(grey, codecformat="j2k"), grey)
    elif kind == "RLE":
        from pydicom.uid import RLELossless

        ds = dataset(rgb)
        ds.compress(RLELossless)
        ds.save_as(path, enforce_file_format=True)
    else:
        stream = imagecodecs.jpeg_encode(rgb, level=90)
        encoded(path, "JPEGBaseline8Bit", stream, rgb, PhotometricInterpretation="YBR_FULL_422")


@pytest.mark.skipif(sys.platform != "linux", reason="measures by /proc")
@pytest.mark.parametrize("kind", ["plain", "padded", "JPEG 2000", "RLE", "JPEG, YBR"])
def test_reading_takes_what_is_told(tmp_path: Path, kind: str) -> None:
    make(kind, tmp_path / "a.dcm")
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, str(tmp_path / "a.dcm")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken, told = map(int, done.stdout.split())
    assert 0.6 * told <= taken <= told
