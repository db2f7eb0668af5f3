"""Stacks and blocks that are small."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.geometry import layout
from tests.engine import jobs


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of three frames of 64x96, so that small stacks have several."""
    monkeypatch.setattr(layout, "BLOCK_PIXELS", 3 * 64 * 96)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    return jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((14, 64, 96)))
