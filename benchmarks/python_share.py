"""Python's own share of a frame, by sampling: `python -m benchmarks.python_share`.

    python -m benchmarks.python_share [--frames 60] [--repeats 3] [--kind raw|lzw] [--known-labels]

Whole jobs as in `benchmarks.stages`, under Linux's `perf`, which tells in which library each sample
of the processor fell. A job of many frames less one of few is what frames take. "Python" is the
interpreter itself: its loop, its objects, its own `json` and the like. What NumPy or Arrow do in C
is theirs, also where their calls are many and small. With --known-labels, labels and measures give
at once what they gave before, as the network does: what is left is reading, statistics, writing,
levels.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import statistics
import subprocess
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import engine.steps.whole
from benchmarks import frames as of
from benchmarks.stages import FRAMES, costing_nothing, job, known_network
from engine.job.executors import SerialExecutor

RATE = 4000  # samples a second of processor time
# Libraries by what they are; the rest is listed by its name.
KNOWN = {
    r"python3|_json|_struct|_datetime|_pickle|_asyncio|_queue": "Python",
    r"_multiarray_umath|_multiarray|openblas": "NumPy",
    r"kernel": "the kernel",
    r"libc\.so|libstdc|libgcc|libm\.so|ld-linux|\[unknown\]|vdso": "libc",
    r"arrow|parquet|pyarrow": "Arrow",
    r"crypto|hashlib": "SHA-256",
    r"zstd|numcodecs|crc32c": "Zstandard, checksums",
    r"imagecodecs|tiff|_lzw": "imagecodecs",
    r"pydantic": "Pydantic",
    r"onnx": "ONNX Runtime",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kind", choices=of.KINDS, default="raw")
    parser.add_argument("--known-labels", action="store_true")
    options = parser.parse_args()
    if options.known_labels:
        know_labels()
    few, many = options.frames, 3 * options.frames
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, costing_nothing(known_network()):
        stacks = {
            count: of.write(Path(folder) / f"{count}.tif", FRAMES, count, options.kind)
            for count in (few, many)
        }
        job(stacks[few], Path(folder) / "out", SerialExecutor())  # what is done once
        for _ in range(options.repeats):
            few_ms, many_ms = (sampled(stacks[count], Path(folder)) for count in (few, many))
            for name in many_ms | few_ms:
                each = (many_ms[name] - few_ms[name]) / (many - few)
                found.setdefault(name, []).append(each)
    print(f"| core-ms a frame, {options.kind} | |\n| --- | --- |")
    for name, values in sorted(found.items(), key=lambda one: -statistics.median(one[1])):
        if statistics.median(values) >= 0.01:
            print(f"| {name} | {statistics.median(values):.2f} ({min(values):.2f} to "
                  f"{max(values):.2f}) |")  # fmt: skip


def know_labels() -> None:
    """Have labels and measures of a frame be those that it had before."""
    own, known = engine.steps.whole.label_whole, {}

    def label_whole(pixels: Any, number: int, *rest: Any) -> Any:
        key = zlib.crc32(pixels[number][0].tobytes())
        if key not in known:
            known[key] = own(pixels, number, *rest)
        return known[key]

    engine.steps.whole.label_whole = label_whole


def sampled(stack: Path, folder: Path) -> Counter[str]:
    """Core-ms of a job on a stack, by library."""
    data = folder / "perf.data"
    command = ["perf", "record", "-q", "-F", str(RATE), "-e", "cpu-clock", "-o", str(data), "-p"]
    perf = subprocess.Popen([*command, str(os.getpid())])
    time.sleep(1)  # until it listens
    begin = time.process_time()
    job(stack, folder / "out", SerialExecutor())
    spent = 1000 * (time.process_time() - begin)
    perf.send_signal(signal.SIGINT)
    perf.wait()
    report = ["perf", "report", "-i", str(data), "--sort", "dso", "--stdio"]
    text = subprocess.run(report, capture_output=True, text=True, check=True).stdout
    shares: Counter[str] = Counter()
    for percent, library in re.findall(r"^\s*([\d.]+)%\s+(\S+)", text, re.MULTILINE):
        name = next((name for signs, name in KNOWN.items() if re.search(signs, library)), library)
        shares[name] += float(percent) / 100 * spent  # type: ignore[assignment]
    return shares


if __name__ == "__main__":
    main()
