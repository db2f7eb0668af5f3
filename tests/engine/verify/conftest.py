"""Jobs that are made once; a test damages copies of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.verify.damage import KINDS, make_job


@pytest.fixture(scope="session", params=KINDS)
def job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_job(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_job(tmp_path_factory.mktemp("one"), "whole")
