"""Where the command begins: makes sure that `engine` is ours before anything of it is imported.

The packages have everyday names. A file `engine.py` in a folder on PYTHONPATH comes before them,
and one called `numpy.py` before the library that they need.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("engine", "train", "export")
LIBRARIES = (
    "click", "dask", "distributed", "imagecodecs", "numcodecs", "numpy", "onnx", "onnxruntime",
    "openvino", "psutil", "pyarrow", "rich", "scipy", "skimage", "tifffile", "torch", "zarr",
)  # fmt: skip


def main() -> None:
    """Run the command; exit status 2 where another module is found in place of one of ours."""
    ours = Path(__file__).resolve().parent
    for name in PACKAGES:
        spec = find_spec(name)
        found = Path(spec.origin) if spec is not None and spec.origin else None
        if found is None or found.resolve().parent != ours / name:
            sys.stderr.write(_sentence(name, found))
            sys.exit(2)
    for name, own in _in_place_of_libraries():
        sys.stderr.write(_sentence(name, own))
        sys.exit(2)
    from engine.cli import main

    main()


def _in_place_of_libraries() -> Iterator[tuple[str, Path]]:
    """Modules on PYTHONPATH, or where Python was started, that hide a library by their name."""
    folders = [] if sys.flags.safe_path else sys.path[:1]
    if not sys.flags.ignore_environment:
        folders += os.environ.get("PYTHONPATH", "").split(os.pathsep)
    for folder in (Path(one).absolute() for one in folders if one):
        for name in LIBRARIES:
            file, package = folder / f"{name}.py", folder / name / "__init__.py"
            if package.is_file():  # it comes before a file of its name
                if not _is_library(package):
                    yield name, package
            elif file.is_file():
                yield name, file


def _is_library(package: Path) -> bool:
    """Whether a package is what its name says: installed with its metadata, or of a version."""
    beside = package.parent.parent.glob("*-info")
    return any(beside) or b"__version__" in package.read_bytes()


def _sentence(name: str, found: Path | None) -> str:
    if found is None:
        return f"stackseg: its package {name!r} is not installed; install stackseg again\n"
    where = str(found).encode("ascii", "backslashreplace").decode()
    whose = "stackseg's own" if name in PACKAGES else "the library"
    return (
        f"stackseg: {where} is found in place of {whose} {name!r}; rename it, or take its "
        "folder off PYTHONPATH\n"
    )
