from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.naming import distinct_names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/d/a.tif"], ["a"]),
        (["/d/a.ome.tif", "/d/b.ome.zarr"], ["a", "b"]),
        (["/a/01.tif", "/b/01.tif", "/b/02.tif"], ["a/01", "b/01", "02"]),
        (["/x/a/01", "/y/a/01"], ["x/a/01", "y/a/01"]),
        (["/d/a.tif", "/d/a.zarr"], ["a.tif", "a.zarr"]),
        (["/d/a.tif", "/d/a.png", "/d/a.tif.png"], ["a.tif", "a.png", "a.tif.png"]),
    ],
)
def test_by_hand(paths: list[str], names: list[str]) -> None:
    assert distinct_names(paths) == names


part = st.sampled_from(["a", "b", "a.tif", "a.png", "a.tif.png", "b.zarr", "01"])


@given(st.lists(st.lists(part, min_size=1, max_size=4), min_size=1, max_size=8, unique_by=tuple))
def test_names_are_distinct_ends_of_their_paths(parts: list[list[str]]) -> None:
    paths = ["/root/" + "/".join(p) for p in parts]
    names = distinct_names(paths)
    assert len(set(names)) == len(names)
    for path, name in zip(paths, names, strict=True):
        # An end of the path, but for the suffix of the file.
        ends = ["/".join(Path(path).parts[-n:]) for n in range(1, len(Path(path).parts))]
        assert any(end == name or end.startswith(f"{name}.") for end in ends)
