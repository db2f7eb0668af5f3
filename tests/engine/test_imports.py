"""A light front door: what a fresh interpreter loads for `stackseg --help`."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

HEAVY = {
    "torch", "torchvision", "onnx", "onnxruntime", "dask", "distributed", "zarr", "scipy",
    "tifffile", "imagecodecs", "numpy", "pyarrow", "pydantic", "rich", "matplotlib", "PIL", "av",
}  # fmt: skip
ROOT = Path(__file__).parents[2]


# What other inputs, runtimes, results and commands need.
OF_OTHER_JOBS = {
    "torch", "torchvision", "openvino", "skimage", "PIL", "av", "matplotlib", "pydicom",
    "highdicom", "nibabel", "h5py", "shapely",
    # Nor what takes long to import, and has no part in a job on a TIFF.
    "pandas", "zarr", "ome_zarr_models", "fsspec", "bokeh",
}  # fmt: skip


def loaded_by(*arguments: str) -> set[str]:
    code = (
        "import sys; from engine.cli import main\n"
        f"sys.argv = ['stackseg', *{list(arguments)!r}]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print('\\n', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], *([name, "--help"] for name in ("segment", "render", "convert", "train"))],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    loaded = loaded_by(*arguments)
    assert "click" in loaded
    assert not loaded & HEAVY


def test_a_job_loads_nothing_of_others(tmp_path: Path, threshold_model: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((2, 32, 32), np.uint16))
    loaded = loaded_by(
        "segment", str(tmp_path / "stack.tif"), "--model", str(threshold_model), "--quiet",
        "--output", str(tmp_path / "out"), "--runtime", "onnxruntime",
    )  # fmt: skip
    assert {"onnxruntime", "tifffile", "distributed"} <= loaded
    assert not loaded & OF_OTHER_JOBS


def imports_of(package: str) -> set[str]:
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found


def test_imports_run_one_way() -> None:
    # export -> train -> engine; and a node that only segments needs no torch
    assert not imports_of("engine") & {"train", "export", "torch", "torchvision"}
    assert not imports_of("train") & {"export"}


def test_a_missing_extra_is_one_sentence(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from engine.cli import main\n"
        f"sys.argv = ['stackseg', 'train', '--data', {str(tmp_path)!r}, '--layout', 'pairs',"
        f" '--output', {str(tmp_path / 'run')!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "run pip install '.[train]' in stackseg's source folder" in done.stderr
