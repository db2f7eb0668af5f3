"""Every odd file of the data sets through the real reading path, under limits.

    python -m benchmarks.odd_files [DATA] [--output TABLE.md]

DATA is the folder of data sets, by default that which STACKSEG_DATA names. A child process opens
each file, reads all its frames and a window, and compares them with what the format's own library
makes of it. It may take SECONDS and MEMORY beyond what it has before it opens a file; one that
takes more, or dies, is named. The tests use `survey` with the same limits.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.odd_files_child import MEMORY, SECONDS

COLLECTIONS = ("odd_tiffs", "ome_zarr", "dicom", "neubias")
_ZARR = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
_LONGEST = 300  # lines of a table with a row for each file
GOOD = ("equal", "equal with --axes", "refused", "read, and nothing to compare with")

Row = dict[str, Any]


def survey(paths: Iterable[Path]) -> list[Row]:
    """One row per path: result, seconds, peak_mb and so on. Never raises on behalf of a file."""
    left = [str(p) for p in paths]
    rows: list[Row] = []
    while left:
        done, died = _child(left)
        rows += done
        left = left[len(done) :]
        if left:  # the child is gone, and the first that is left took it along
            rows.append({"path": left[0], **died})
            left = left[1:]
    return rows


def _child(paths: Sequence[str]) -> tuple[list[Row], Row]:
    """Rows of the paths that a child got through, and what became of the one after."""
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.odd_files_child"],
        input="\n".join(paths) + "\n",
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, **one_thread},
    )
    rows: list[Row] = []
    read: Row = {}
    for line in done.stdout.splitlines():
        row = json.loads(line)
        if row.pop("final", True):
            rows.append(row)
        else:
            read = row
    if len(rows) < len(paths) and read.get("path") == paths[len(rows)]:
        return rows, {**read, "note": "its own library dies or hangs"}
    reason = "HANGS" if done.returncode == -14 else f"CRASHES ({done.returncode})"
    return rows, {"result": reason, "error": done.stderr[-500:]}


def inputs(data: Path) -> Iterator[tuple[str, Path]]:
    """(collection, path) of every file, and of every array and group of the Zarr stores."""
    for name in COLLECTIONS:
        for path in sorted((data / name).rglob("*")):
            if name != "ome_zarr":
                if path.is_file():
                    yield name, path
            elif path.is_dir() and any((path / file).is_file() for file in _ZARR):
                yield name, path


def reason(row: Row) -> str:
    """Why a file is refused, the same for all files that are refused for the same reason."""
    sentence = row["error"].replace(row["path"], "").partition(": ")[2].removeprefix(": ")
    sentence = re.sub(r"give (one of them|its fields?|one): .*", r"give \1: ...", sentence)
    sentence = re.sub(r"[0-9]+(x[0-9]+)*|\([0-9, ]+\)", "N", sentence.strip())
    return re.sub(r"give --axes .*", "give --axes ...", sentence)


def table(rows: Sequence[tuple[str, Row]], data: Path) -> str:
    """The rows as Markdown; no path but those within the data sets."""
    folders: dict[str, collections.Counter[str]] = {}
    results = sorted({row["result"] for _, row in rows})
    for name, row in rows:
        folders.setdefault(_folder(name, Path(row["path"]), data), collections.Counter())[
            row["result"]
        ] += 1
    out = ["| folder | " + " | ".join(results) + " |", "| --- |" + " ---: |" * len(results)]
    for folder, counts in sorted(folders.items()):
        out.append(f"| {folder} | " + " | ".join(str(counts[r] or "") for r in results) + " |")
    total = collections.Counter(row["result"] for _, row in rows)
    out.append("| **all** | " + " | ".join(str(total[r]) for r in results) + " |")
    slow = max((row.get("seconds", 0) for _, row in rows), default=0)
    large = max((row.get("peak_mb", 0) for _, row in rows), default=0)
    out += ["", f"The slowest takes {slow:.1f} s, the largest {large:.0f} MB beyond the base.", ""]
    out += _refusals(rows, data)
    odd = [(n, r) for n, r in rows if r["result"] not in GOOD]
    listed = rows if len(rows) <= _LONGEST else odd
    if listed:
        out += ["", "## Files", "", "| file | result | s | MB |", "| --- | --- | ---: | ---: |"]
    for _, row in listed:
        said = row["result"] + (f": {reason(row)}" if row.get("error") else "")
        file = Path(row["path"]).relative_to(data)
        out.append(f"| {file} | {said} | {row.get('seconds', '')} | {row.get('peak_mb', '')} |")
    return "\n".join(out) + "\n"


def _folder(name: str, path: Path, data: Path) -> str:
    parts = path.relative_to(data / name).parts[:-1]
    return "/".join((name, *[p for p in parts if not p.endswith(".zarr")][:3]))


def _refusals(rows: Sequence[tuple[str, Row]], data: Path) -> list[str]:
    groups: dict[tuple[str, bool], list[str]] = {}
    for _, row in rows:
        if row["result"] in ("refused", "equal with --axes"):
            key = (reason(row), bool(row.get("note")))
            groups.setdefault(key, []).append(str(Path(row["path"]).relative_to(data)))
    out = ["## Refused, by reason", "", "| files | reason | decoded by its library | such as |"]
    out.append("| ---: | --- | --- | --- |")
    for (why, noted), files in sorted(groups.items(), key=lambda g: -len(g[1])):
        out.append(f"| {len(files)} | {why} | {'yes' if noted else 'no'} | {files[0]} |")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", default=os.environ.get("STACKSEG_DATA"))
    parser.add_argument("--output", help="write the table here as well")
    parser.add_argument("--rows", help="write all rows here, one JSON document per line")
    given = parser.parse_args()
    if not given.data:
        parser.error("give the folder of data sets, or set STACKSEG_DATA")
    data = Path(given.data)
    found = list(inputs(data))
    rows = survey(path for _, path in found)
    named = list(zip((name for name, _ in found), rows, strict=True))
    text = (
        "# Odd files\n\n    python -m benchmarks.odd_files DATA --output "
        "benchmarks/results/odd-files.md\n\n"
        f"Each file by itself, at most {SECONDS} s and {MEMORY / 1e9:.0f} GB beyond the base; "
        '"equal" means all pixels of all frames, and those of a window.\n\n'
    ) + table(named, data)
    print(text)
    if given.output:
        Path(given.output).write_text(text, encoding="utf-8")
    if given.rows:
        Path(given.rows).write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    sys.exit(any(row["result"] not in GOOD for row in rows))


if __name__ == "__main__":
    main()
