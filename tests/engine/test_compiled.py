"""What is compiled is kept where that is possible, and works where it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest

from engine.compiled import compiled

ROOT = Path(__file__).parents[2]
LABEL = """
import numpy as np
from engine.labels.components import _label, label_frame
assert label_frame(np.eye(3, dtype=bool))[1] == 1
print(sum(_label.stats.cache_hits.values()), sum(_label.stats.cache_misses.values()))
"""


def test_a_second_process_loads_what_the_first_compiled(tmp_path: Path) -> None:
    def hits_and_misses() -> str:
        return subprocess.run(
            [sys.executable, "-c", LABEL], check=True, capture_output=True, text=True, cwd=ROOT,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kept")},
        ).stdout  # fmt: skip

    assert [hits_and_misses().split() for _ in range(2)] == [["0", "1"], ["1", "0"]]


def test_without_a_place_to_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_a_place(**options: Any) -> Any:
        def decorate(function: Any) -> Any:
            if options.get("cache"):
                raise RuntimeError("cannot cache function: no locator available")
            return numba.njit(**options)(function)

        return decorate

    monkeypatch.setattr("engine.compiled.numba", SimpleNamespace(njit=without_a_place))

    @compiled
    def doubled(values: np.ndarray) -> np.ndarray:
        return values * 2

    assert doubled(np.arange(3)).tolist() == [0, 2, 4]
