"""Modules of the user's that are called as the product's packages are: `engine.py`, `train/`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import make_threshold_model
from tests.engine import jobs

COMMAND = Path(sys.executable).with_name("stackseg")
OURS = ("engine", "train", "export")


def own_module(folder: Path, name: str, kind: str) -> Path:
    """The user's module `name`: a file, or a package, with a `cli.py` as ours have."""
    code = "raise SystemExit('the user\\'s own script ran')\n"
    path = folder / f"{name}.py"
    if kind == "package":
        (folder / name).mkdir()
        (folder / name / "cli.py").write_text(code)
        path = folder / name / "__init__.py"
    path.write_text(code)
    return path


@pytest.mark.parametrize("kind", ["file", "package"])
@pytest.mark.parametrize("name", OURS)
def test_one_on_the_path_is_named_in_one_sentence(tmp_path: Path, name: str, kind: str) -> None:
    own = own_module(tmp_path, name, kind)
    done = subprocess.run(
        [COMMAND, "--help"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": "."},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("stackseg: ") and done.stderr.count("\n") == 1, done.stderr
    assert str(own) in done.stderr and "PYTHONPATH" in done.stderr


def test_one_beside_the_path_is_never_looked_at(tmp_path: Path) -> None:
    for name in OURS:
        own_module(tmp_path, name, "file")
    done = subprocess.run([COMMAND, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["file", "package"])
def test_a_process_of_its_own_imports_what_the_job_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    # As after a death: the attempt is there, and the block is done in a process of its own.
    for name in OURS:
        own_module(tmp_path, name, kind)
    monkeypatch.chdir(tmp_path)
    model = make_threshold_model(tmp_path / "threshold.onnx")
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((3, 64, 96)))
    lines = [
        "import sys",
        "from pathlib import Path",
        "from engine.job import attempts as tasks",
        "from engine.cli import main",
        "tasks.carry_out = lambda *_: sys.exit('done in the first process')",
        "place = Path('out/.stackseg/attempts/stack/segment/000000.json')",
        "check = tasks.check_identity",
        "def check_identity(*what):",
        "    place.parent.mkdir(parents=True, exist_ok=True); place.write_text('{}')",
        "    return check(*what)",
        "tasks.check_identity = check_identity",
        f"sys.argv = ['stackseg', 'segment', {str(stack)!r}, '--model', {str(model)!r},",
        "            '--output', 'out', '--quiet']",
        "main()",
    ]
    done = subprocess.run(
        [sys.executable, "-P", "-c", "\n".join(lines)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/job.json").is_file()
