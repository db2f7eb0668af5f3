from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.job.inputs import open_inputs
from engine.model.file import open_model
from engine.stacks.inputs import distinct_names
from tests.conftest import make_threshold_model
from tests.engine import jobs


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


def test_a_name_too_long_for_a_result_is_refused_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The input is refused before the job begins, and the others are read."""
    monkeypatch.chdir(tmp_path)
    model = make_threshold_model(tmp_path / "threshold.onnx")
    longest, longer = "n" * 250 + ".tif", "é" * 125 + "n.tif"
    for name in (longest, longer, "a.tif"):
        jobs.write_stack(tmp_path / name, jobs.blobs((1, 32, 32)))
    opened = open_inputs(
        jobs.settings([longest, longer, "a.tif"], model, tmp_path / "out"), open_model(model)
    )
    assert [one.info.path for one in opened.opened] == [longest, "a.tif"]
    ((path, reason),) = opened.refused
    assert path == longer and "that of its result would have 256 bytes" in reason
