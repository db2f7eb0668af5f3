from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import zarr

from engine.errors import StackError, UsageError
from engine.stacks.inputs import expand_inputs
from engine.stacks.open import open_stack


def text(path: Path) -> None:
    path.write_text("this is not an image\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def nothing(path: Path) -> None:
    pass


def folder(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("nothing here")


def empty_group(path: Path) -> None:
    zarr.open_group(str(path), mode="w")


def header_only(path: Path) -> None:
    path.write_bytes(b"II*\0\x08\0\0\0")


def no_directory(path: Path) -> None:
    path.write_bytes(b"II*\0\0\0\0\0")


def far_away(path: Path) -> None:
    path.write_bytes(b"II*\0\xff\xff\xff\x7f")


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("a.tif", text, "named like a TIFF file but holds something else"),
        ("a.png", text, "named like a PNG file but holds something else"),
        ("a.txt", text, "is not TIFF, PNG, JPEG, DICOM, NIfTI or Zarr"),
        ("a.tif", empty, "is empty"),
        ("a.tif", nothing, "does not exist"),
        ("a", folder, "folder without TIFF, PNG or JPEG"),
        ("a.zarr", folder, "has no Zarr metadata"),
        ("a.zarr", empty_group, "without an image"),
        ("a.tif", header_only, "truncated"),
        ("a.tif", no_directory, "without images"),
        ("a.tif", far_away, "truncated"),
    ],
)
def test_bad_inputs(tmp_path: Path, name: str, make: object, says: str) -> None:
    path = tmp_path / name
    make(path)  # type: ignore[operator]
    with pytest.raises(StackError, match=says) as caught:
        open_stack(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads anything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    header_only(path)
    path.chmod(0)
    with pytest.raises(StackError, match="permissions"):
        open_stack(str(path))


def test_lists_of_inputs(tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("# frames\n\na.tif\n  sub/b c.tif  \n/abs/c.zarr\n")
    assert expand_inputs(["x.tif", f"@{listing}"]) == [
        "x.tif",
        str(tmp_path / "a.tif"),
        str(tmp_path / "sub/b c.tif"),
        "/abs/c.zarr",
    ]
    with pytest.raises(UsageError, match="does not exist"):
        expand_inputs([f"@{tmp_path / 'gone.txt'}"])
    listing.write_text("# nothing\n")
    with pytest.raises(UsageError, match="is empty"):
        expand_inputs([f"@{listing}"])


def test_importing_the_readers_is_light() -> None:
    code = (
        "import sys, engine.stacks, engine.stacks.open; "
        "print([m for m in ('zarr', 'tifffile', 'imagecodecs') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
