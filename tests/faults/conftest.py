"""The undisturbed job that every kill is compared with."""

from __future__ import annotations

import sys

import pytest

from tests.faults.campaigns import Undisturbed, undisturbed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not sys.platform.startswith("linux"):
        for item in items:
            if "faults" in item.path.parts:
                item.add_marker(pytest.mark.skip(reason="needs /proc and POSIX signals"))


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"))
