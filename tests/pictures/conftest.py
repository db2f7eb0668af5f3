"""Results to be drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import results
from tests.engine import jobs


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job over a time-lapse of 6 frames of 61x83 px, with sizes and times."""
    place = tmp_path_factory.mktemp("movie")
    stack = results.write_ome(place / "lapse.ome.tif", jobs.blobs((6, 61, 83)), "TYX")
    return results.make_result(place, [stack])


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job over two stacks: T, C, Z, Y, X of two channels, and Z, Y, X."""
    place = tmp_path_factory.mktemp("deep")
    five = results.write_ome(place / "five.ome.tif", jobs.blobs((2, 2, 3, 40, 48)), "TCZYX")
    three = results.write_ome(place / "three.ome.tif", jobs.blobs((4, 1, 40, 48), 1), "ZCYX")
    return results.make_result(place, [five, three], channel="0")
