"""Every mutant can be tried: code that it breaks is still there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.mutants.__main__ import ROOT, read

PATCHES = sorted(Path(__file__).parent.glob("*.patch"))


@pytest.mark.skipif(shutil.which("git") is None, reason="git applies the patches")
@pytest.mark.parametrize("path", PATCHES, ids=lambda path: path.stem)
def test_a_mutant_applies(path: Path) -> None:
    mutant = read(path)
    done = subprocess.run(
        ["git", "apply", "--check", "-"], input=mutant.patch, text=True, cwd=ROOT,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all((ROOT / test.partition("::")[0]).exists() for test in mutant.tests if "/" in test)
