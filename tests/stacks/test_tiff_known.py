"""A TIFF that has not changed is not parsed again; one that has is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from engine.errors import StackError
from engine.stacks.open import open_stack
from engine.stacks.tiff import open as opener

PLAIN: dict[str, Any] = {"photometric": "minisblack", "metadata": {"axes": "TYX"}}


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths that are parsed."""
    found: list[str] = []
    own: Callable[..., list[opener.TiffStack]] = opener._opened_stacks

    def opened(path: str, *rest: object, **options: bool) -> list[opener.TiffStack]:
        found.append(path)
        return own(path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(opener, "_opened_stacks", opened)
    return found


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_once_as_long_as_it_is_the_same(
    tmp_path: Path, parsed: list[str], compression: str | None
) -> None:
    path, pixels = str(tmp_path / "a.tif"), np.arange(3 * 9 * 8, dtype=np.uint16).reshape(3, 9, 8)
    tifffile.imwrite(path, pixels, compression=compression, **PLAIN)
    with open_stack(path) as first:
        with open_stack(path) as second:
            assert np.array_equal(second.read(2, 0, [0])[0], pixels[2])
        assert first.info == second.info
        assert np.array_equal(first.read(1, 0, [0])[0], pixels[1])  # closing one closes it alone
    assert len(parsed) == 1
    tifffile.imwrite(path, pixels[:2], compression=compression, **PLAIN)
    with open_stack(path) as third:
        assert third.info.size("T") == 2
    with open_stack(path, "ZYX") as fourth:
        assert fourth.info.axes == "ZYX"
    assert len(parsed) == 3
    Path(path).unlink()
    with pytest.raises(StackError, match="does not exist"):
        open_stack(path)


def test_a_set_of_files_is_parsed_each_time(tmp_path: Path, parsed: list[str]) -> None:
    """What it is follows from the other files as well."""
    files = [tmp_path / f"{i}.ome.tif" for i in range(2)]
    uuids = [f"urn:uuid:00000000-0000-0000-0000-00000000000{i}" for i in range(2)]
    data = "".join(
        f'<TiffData FirstT="{i}" IFD="0" PlaneCount="1"><UUID FileName="{file.name}">{uuid}</UUID>'
        "</TiffData>"
        for i, (file, uuid) in enumerate(zip(files, uuids, strict=True))
    )
    for file, uuid in zip(files, uuids, strict=True):
        xml = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuid}">'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" '
            f'SizeX="8" SizeY="9" SizeC="1" SizeZ="1" SizeT="2"><Channel ID="C:0"/>{data}'
            "</Pixels></Image></OME>"
        )
        tifffile.imwrite(file, np.ones((9, 8), np.uint8), description=xml, metadata=None)
    for _ in range(2):
        with open_stack(str(files[0])) as stack:
            assert len(stack.files) == 2
    assert len(parsed) == 2
