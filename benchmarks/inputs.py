"""What a job of very many inputs takes for each: seconds to plan, to run, and to see it is done.

    python -m benchmarks.inputs [--counts 1000 10000] [--folder DIR] [--one-stack 50000]

Inputs are TIFF files of one frame of 64 x 64 px, named in a list; the network is one threshold, so
that what is measured is everything around it. `--one-stack` puts that many files into one folder,
which is one stack. Seconds are of the whole command, its start included. Files share the bytes of
ten.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.record import Run, add_options, finish
from tests.conftest import make_threshold_model

SHAPE = (64, 64)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--counts", nargs="*", type=int, default=[1000, 10_000])
    parser.add_argument("--one-stack", nargs="*", type=int, default=[])
    parser.add_argument("--folder", type=Path, help="where files and results are put")
    parser.add_argument("--workers", default="2")
    options = add_options(parser, repeats=1).parse_args()
    found = Run("inputs")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        model = make_threshold_model(folder / "t.onnx")
        for count in options.counts:
            paths = write_frames(folder / f"files{count}", count)
            listed = folder / f"list{count}.txt"
            listed.write_text("".join(f"{path}\n" for path in paths))
            measure(found, f"{count:,} stacks", count, f"@{listed}", model, options.workers)
        for count in options.one_stack:
            stack = folder / f"stack{count}"
            write_frames(stack, count)
            measure(found, f"1 stack of {count:,}", count, str(stack), model, options.workers)
    finish(found, options)


def measure(found: Run, row: str, count: int, given: str, model: Path, workers: str) -> None:
    """Run the three commands."""
    output = model.parent / f"out-{row.replace(' ', '-')}"
    job = [given, "--model", str(model), "--workers", workers]
    segment = ["segment", *job, "--output", str(output), "--quiet"]
    for name, command in (("plan", ["plan", *job]), ("segment", segment), ("again", segment)):
        seconds = run(*command)
        found.add(f"{row}/{name}", "s", [seconds])
        found.add(f"{row}/{name}, an input", "ms", [1000 * seconds / count])


def write_frames(folder: Path, count: int) -> list[Path]:
    """So many files of one frame; ten differ, the others are links to these."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = [folder / f"t{n:06d}.tif" for n in range(count)]
    for n, path in enumerate(paths):
        if n < 10:
            frame = np.kron(rng.integers(0, 60_000, (8, 8)), np.ones((8, 8)))
            tifffile.imwrite(path, frame.astype(np.uint16))
        else:
            os.link(paths[n % 10], path)
    return paths


def run(*arguments: str) -> float:
    """Seconds that a command takes."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "engine", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
