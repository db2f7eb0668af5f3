"""Where the command begins: makes sure that `engine` is ours before anything of it is imported.

The packages have everyday names. A file `engine.py` in a folder on PYTHONPATH comes before them.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("engine", "train", "export")


def main() -> None:
    """Run the command; exit status 2 where another module is found in place of one of ours."""
    ours = Path(__file__).resolve().parent
    for name in PACKAGES:
        spec = find_spec(name)
        found = Path(spec.origin) if spec is not None and spec.origin else None
        if found is None or found.resolve().parent != ours / name:
            sys.stderr.write(_sentence(name, found))
            sys.exit(2)
    from engine.cli import main

    main()


def _sentence(name: str, found: Path | None) -> str:
    if found is None:
        return f"stackseg: its package {name!r} is not installed; install stackseg again\n"
    where = str(found).encode("ascii", "backslashreplace").decode()
    return (
        f"stackseg: {where} is found in place of stackseg's own {name!r}; rename it, or take its "
        "folder off PYTHONPATH\n"
    )
