"""The suite: `make bench`, or `python -m benchmarks`.

    python -m benchmarks [--short]                  # a JSON for each in benchmarks/results/runs
    python -m benchmarks --only limit paper
    python -m benchmarks --full                     # all that docs/benchmarks.md and docs/scale.md
                                                    # show, and both pages
    python -m benchmarks --device cuda:0 --json FILE    # all into one file, as gpu.sh does
    python -m benchmarks --compare A.json B.json

Each benchmark is a process of its own. --full takes about 20 minutes on two cores; `hela` needs
STACKSEG_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.peers import PEERS
from benchmarks.record import Run, compare

# What each takes with --short: enough to see that it works.
SHORT = {
    "agreement": ["--frames", "1"],
    "paper": ["--frames", "2", "--repeats", "1"],
    "limit": ["--frames", "10", "--repeats", "1", "--shape", "256", "256"],
    "stages": ["--frames", "2", "--repeats", "1"],
    "peers": ["--frames", "2", "--repeats", "1"],
    "hela": ["--frames", "0:5", "--repeats", "1"],
    "workers": ["--frames", "10", "--repeats", "1"],
    "scheduler": ["--slots", "20", "--seconds", "1", "--duration", "2"],
}
BY_DEVICE = ("agreement", "paper", "limit")  # the others have no device
SUITE = ("limit", "peers", "paper", "stages")
FULL = (*SUITE, "hela", "workers", "scheduler")
GPU = ("agreement", "paper", "limit", "stages")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=SHORT)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--short", action="store_true", help="to see that it works: no figures")
    parser.add_argument("--json", type=Path, help="all runs in one file")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("A", "B"))
    options = parser.parse_args()
    if options.compare:
        print(compare(*options.compare))
        return
    names = options.only or (GPU if options.json else FULL if options.full else SUITE)
    if "hela" in names and not os.environ.get("STACKSEG_DATA"):
        print("hela: left out; STACKSEG_DATA is not set", file=sys.stderr)
        names = [name for name in names if name != "hela"]
    if "peers" in names and not PEERS.exists() and not options.only:
        print("peers: left out; `make peers` makes their environment", file=sys.stderr)
        names = [name for name in names if name != "peers"]
    with tempfile.TemporaryDirectory() as folder:
        parts = {name: Path(folder) / f"{name}.json" for name in names}
        for name, part in parts.items():
            command = [sys.executable, "-m", f"benchmarks.{name}"]
            command += ["--device", options.device] if name in BY_DEVICE else []
            command += SHORT[name] if options.short else []
            command += ["--json", str(part)] if options.json or options.short else ["--save"]
            print(" ".join(command[1:]), file=sys.stderr, flush=True)
            subprocess.run(command, check=True)
        if options.json:
            merged("gpu", parts).write(options.json)
    if options.full and not options.short:
        for page in (["page"], ["beyond", "--output", "docs/scale.md"]):
            subprocess.run([sys.executable, "-m", f"benchmarks.{page[0]}", *page[1:]], check=True)


def merged(benchmark: str, parts: dict[str, Path]) -> Run:
    """Several runs as one: figures and notes by benchmark."""
    run = Run(benchmark)
    for name, path in parts.items():
        part = json.loads(path.read_text())
        run.figures |= {f"{name}/{key}": value for key, value in part["figures"].items()}
        run.notes |= {f"{name}/{key}": value for key, value in part["notes"].items()}
    return run


if __name__ == "__main__":
    main()
