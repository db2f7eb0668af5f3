"""What is compiled is kept where that is possible, and works where it is not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile

from engine.compiled import compiled, is_kept

ROOT = Path(__file__).parents[2]
LABEL = """
import numpy as np
from engine.labels.components import _joined, label_frame
assert label_frame(np.eye(3, dtype=bool))[1] == 1
print(sum(_joined.stats.cache_hits.values()), sum(_joined.stats.cache_misses.values()))
"""


def hits_and_misses(cache: Path) -> str:
    """Label in a process of its own, and say how often the cache had what was asked for."""
    return output_of(LABEL, cache)


def output_of(code: str, cache: Path) -> str:
    """What a process of its own prints."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
    ).stdout.strip()  # fmt: skip


def test_a_second_process_loads_what_the_first_compiled(tmp_path: Path) -> None:
    assert [hits_and_misses(tmp_path / "kept") for _ in range(2)] == ["0 1", "1 0"]


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("size", [0, 20])
def test_damaged_files_are_compiled_again(tmp_path: Path, suffix: str, size: int) -> None:
    hits_and_misses(tmp_path)
    files = list(tmp_path.rglob(f"*.{suffix}"))
    assert files
    for file in files:
        os.truncate(file, size)

    assert [hits_and_misses(tmp_path) for _ in range(2)] == ["0 1", "1 0"]


KEPT = """
import numpy as np
from engine.compiled import is_kept
from engine.measure.frames import _total, total_intensity
print(is_kept(_total), is_kept(_total, "uint8"), is_kept(_total, "uint16"))
total_intensity(np.ones((2, 2), np.uint8))
"""


def test_what_is_kept_is_known_by_pixel_type(tmp_path: Path) -> None:
    assert output_of(KEPT, tmp_path) == "False False False"
    assert output_of(KEPT, tmp_path) == "True True False"
    for file in tmp_path.rglob("*.nbi"):
        os.truncate(file, 20)
    assert output_of(KEPT, tmp_path) == "False False False"


ROUNDED = """
import sys
import numpy as np
from engine.compiled import compiled, is_kept

@compiled
def halves(values):
    return values // 2

print(is_kept(halves, sys.argv[1]), *halves(np.full(1, -2, np.int16).view(sys.argv[1])))
"""


def test_code_for_other_types_is_never_run(tmp_path: Path) -> None:
    """As if two processes had written at one moment: the files of two types have changed places."""
    script = tmp_path / "halves.py"
    script.write_text(ROUNDED)

    def halves_of(dtype: str) -> str:
        command = [sys.executable, str(script), dtype]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)},
        ).stdout.strip()  # fmt: skip

    assert [halves_of("int16"), halves_of("uint16")] == ["False -1", "False 32767"]
    assert [halves_of("int16"), halves_of("uint16")] == ["True -1", "True 32767"]
    one, other = sorted(tmp_path.rglob("*.nbc"))
    code = one.read_bytes(), other.read_bytes()
    one.write_bytes(code[1])
    other.write_bytes(code[0])
    assert [halves_of("int16"), halves_of("uint16")] == ["True -1", "True 32767"]


def test_what_another_processor_compiled_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    @compiled
    def doubled(values: np.ndarray) -> np.ndarray:
        return values * 2

    doubled(np.arange(3))
    assert is_kept(doubled)
    codegen = type(doubled.targetctx.codegen())  # type: ignore[attr-defined]
    monkeypatch.setattr(codegen, "magic_tuple", lambda self: ("another", "processor", ""))
    assert not is_kept(doubled)


def test_what_is_not_compiled_is_not_kept() -> None:
    assert not is_kept(len)


def test_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @compiled
    def doubled(values: np.ndarray) -> np.ndarray:
        return values * 2

    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    assert doubled(np.arange(3)).tolist() == [0, 2, 4]


def test_without_a_place_to_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_a_place(function: Any) -> Any:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr("engine.compiled.Cache", without_a_place)

    @compiled
    def doubled(values: np.ndarray) -> np.ndarray:
        return values * 2

    assert doubled(np.arange(3)).tolist() == [0, 2, 4]
