"""What a job of very many inputs takes for each: seconds to plan, to run, and to see it is done.

    python -m benchmarks.inputs [--counts 1000 10000] [--folder DIR] [--one-stack 50000]

Inputs are TIFF files of one frame of 64 x 64 px, named in a list; the network is one threshold, so
that what is measured is everything around it. `--one-stack` puts that many files into one folder,
which is one stack. Seconds are of the whole command, its start included; the last columns divide
by the number of inputs. Files share the bytes of ten.
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

from engine.job.report import machine
from tests.conftest import make_threshold_model

SHAPE = (64, 64)
PER = 1000  # inputs that the last columns are for


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--counts", nargs="*", type=int, default=[1000, 10_000])
    parser.add_argument("--one-stack", nargs="*", type=int, default=[])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--workers", default="2")
    options = parser.parse_args()
    found = machine()
    print(f"{found.processor}, {found.cores} cores, {found.system}\n")
    print(
        "| inputs | plan s | segment s | again s | plan / 1,000 | segment / 1,000 | again / 1,000 |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        model = make_threshold_model(folder / "t.onnx")
        for count in options.counts:
            paths = write_frames(folder / f"files{count}", count)
            listed = folder / f"list{count}.txt"
            listed.write_text("".join(f"{path}\n" for path in paths))
            row(f"{count:,} stacks", count, f"@{listed}", model, options.workers)
        for count in options.one_stack:
            write_frames(folder / f"stack{count}", count)
            row(
                f"1 stack of {count:,}",
                count,
                str(folder / f"stack{count}"),
                model,
                options.workers,
            )


def row(what: str, count: int, given: str, model: Path, workers: str) -> None:
    """Run the three commands and print a row of the table."""
    output = model.parent / f"out-{what.replace(' ', '-')}"
    job = [given, "--model", str(model), "--workers", workers]
    segment = ["segment", *job, "--output", str(output), "--quiet"]
    seconds = [run("plan", *job), run(*segment), run(*segment)]
    cells = [f"{s:,.1f}" for s in seconds] + [f"{s / count * PER:.2f}" for s in seconds]
    print(f"| {what} | {' | '.join(cells)} |", flush=True)


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
