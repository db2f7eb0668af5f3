"""Break the product in one small way after the other, and expect the tests to see it.

    python -m tests.mutants [NAME ...]      `make mutants` runs them all

Each `NAME.patch` begins with two lines that are no part of the patch: what it breaks, and which
tests must fail. It is applied to a copy of the tree, whose packages come before the installed
ones. Red means that a test *failed*: a tree that no longer imports proves nothing.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAILED = 1  # pytest's exit status where tests ran and some failed
SECONDS = 900


@dataclass(frozen=True)
class Mutant:
    """A way to break a promise."""

    name: str
    breaks: str
    tests: tuple[str, ...]  # as pytest takes them
    patch: str


def read(path: Path) -> Mutant:
    """The mutant in a patch file."""
    breaks, tests, patch = path.read_text().split("\n", 2)
    given = (breaks.partition("Breaks: ")[2], tests.partition("Tests: ")[2])
    if not all(given):
        raise SystemExit(f"{path.name}: begin with the lines 'Breaks: ...' and 'Tests: ...'")
    return Mutant(path.stem, given[0], tuple(shlex.split(given[1])), patch)


def copy_tree(target: Path) -> None:
    """What git tracks or would, without the environment and its caches; as old as it is."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True,
        capture_output=True,
    ).stdout  # fmt: skip
    for name in listed.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def try_out(mutant: Mutant, folder: Path) -> str:
    """How the tests took it: "red", or why that is not so.

    Loops that a mutant leaves alone are compiled once for all of them: the tree lies in one place,
    with its files' times.
    """
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    copy_tree(tree)
    applied = subprocess.run(
        ["git", "apply", "--unsafe-paths", f"--directory={tree}", "-"], input=mutant.patch,
        text=True, capture_output=True, cwd=folder,
    )  # fmt: skip
    if applied.returncode:
        return f"the patch does not apply: {applied.stderr.strip()}"
    places = {"PYTHONPATH": str(tree), "NUMBA_CACHE_DIR": str(folder / "compiled")}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["--hypothesis-profile=mutants", "--timeout=600"]
    tests = subprocess.run(
        [*command, *mutant.tests], cwd=tree, env={**os.environ, **places}, text=True,
        capture_output=True, timeout=SECONDS,
    )  # fmt: skip
    if tests.returncode == FAILED:
        return "red"
    last = (tests.stdout.strip().splitlines() or [tests.stderr])[-1]
    return f"GREEN ({last})" if tests.returncode == 0 else f"not run: {last}"


def main() -> None:
    wanted = set(sys.argv[1:])
    mutants = [read(path) for path in sorted(Path(__file__).parent.glob("*.patch"))]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        for mutant in (m for m in mutants if not wanted or m.name in wanted):
            begin = time.monotonic()
            found = try_out(mutant, Path(folder))
            survivors += found != "red"
            print(f"{found:<8} {mutant.name}: {mutant.breaks} ({time.monotonic() - begin:.0f} s)")
            sys.stdout.flush()
    if survivors:
        raise SystemExit(f"{survivors} mutants were not seen by the tests")


if __name__ == "__main__":
    main()
