"""`stackseg segment` on real frames, process start to exit: `python -m benchmarks.hela`.

    STACKSEG_DATA=DIR python -m benchmarks.hela [--repeats 3] [--precisions fp32 bf16 int8]
                                                [--save] [--json FILE]

The 92 frames of DIR/hela/01 (Fluo-N2DL-HeLa, LZW) with the bundled model in every way that works
here, by the command as a user gives it: labels, levels, tables and records on disk. SEG is against
the silver truth, 25 px at the edges left out. int8 is a file that no gate has judged.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.record import Run, add_options, finish
from benchmarks.ways import Way, ways_of
from engine.results.score.compare import compare
from engine.store.folder import JobFolder

MARGIN = 25  # px
# The command, and the most memory that its process ever held.
COMMAND = """
import sys
from pathlib import Path
from _stackseg import main
try:
    main()
finally:
    print(Path("/proc/self/status").read_text(), file=sys.stderr)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--precisions", nargs="+", default=())
    parser.add_argument("--frames", default=":", help="A:B of them")
    options = add_options(parser, repeats=3).parse_args()
    if not (data := os.environ.get("STACKSEG_DATA")):
        raise SystemExit("set STACKSEG_DATA to a folder that holds hela/")
    run = Run("hela")
    with tempfile.TemporaryDirectory() as folder:
        measure(run, Path(data) / "hela", Path(folder), options)
    finish(run, options)


def measure(run: Run, data: Path, folder: Path, options: argparse.Namespace) -> None:
    """All ways by turns; then their labels against the truth."""
    ways = ways_of("nuclei", only=options.precisions)
    outputs = {way.name: folder / way.name.replace(" ", "-") for way in ways}
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    peaks: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(options.repeats):
        for way in ways:
            begin = time.perf_counter()
            peak = segment(data / "01", outputs[way.name], way, options.frames)
            seconds[way.name].append(time.perf_counter() - begin)
            report = JobFolder(outputs[way.name]).report()
            assert report is not None
            peaks[way.name].append(peak / report.predicted.memory_bytes)
            run.notes["frames"] = report.counts.frames
    truth = data / "01_ST" / "SEG"
    add_all(run, "s", seconds)
    add_all(run, "peak memory of the plan's", peaks)
    scores = {name: [seg(output, truth)] for name, output in outputs.items()}
    add_all(run, "SEG", scores)


def add_all(run: Run, unit: str, found: Mapping[str, list[float]]) -> None:
    """A figure of each way."""
    for name, values in found.items():
        run.add(f"{name}/{unit}", unit, values)


def segment(frames: Path, output: Path, way: Way, chosen: str) -> int:
    """Run the command; the peak of its memory in bytes."""
    command = [
        sys.executable, "-c", COMMAND, "segment", frames, "--model", way.model, "--output", output,
        "--runtime", way.runtime, "--precision", way.job_precision, "--fresh", "--quiet",
        "--frames", chosen,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found = re.search(r"VmHWM:\s+(\d+)", done.stderr)
    assert found is not None
    return int(found[1]) * 1024


def seg(output: Path, truth: Path) -> float:
    """SEG as `stackseg evaluate` counts it."""
    return compare(str(output), str(truth), ignore_border=MARGIN).pooled.seg or 0.0


if __name__ == "__main__":
    main()
