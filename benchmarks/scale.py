"""What grows with the size of a job, and what does not: large frames and many frames.

    python -m benchmarks.scale frame [--sides 5000 20000] [--model nuclei|threshold] [--memory 3GB]
    python -m benchmarks.scale frames [--counts 2000 20000]

`frame` cuts synthetic frames into regions, and compares every label with SciPy's on the whole
frame; it ends where one differs. `frames` runs many small frames, kills the job half way, and
resumes it: peak memory, size of the records, seconds until the first new block is done.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.record import Run, add_options, finish
from engine.plan.footprint import MB
from engine.store.folder import JobFolder
from engine.synthetic import TimeLapse
from tests.conftest import make_threshold_model

TILE = 512
SHAPE = (256, 320)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    frame = kinds.add_parser("frame")
    frame.add_argument("--sides", type=int, nargs="+", default=[5_000, 20_000])
    frame.add_argument("--model", default="threshold")
    frame.add_argument("--memory", default="3GB")
    frames = kinds.add_parser("frames")
    frames.add_argument("--counts", type=int, nargs="+", default=[2_000, 20_000])
    for kind in (frame, frames):
        add_options(kind, repeats=1)
    options = parser.parse_args()
    found = Run(f"scale-{options.kind}")
    with tempfile.TemporaryDirectory() as folder:
        if options.kind == "frame":
            for side in options.sides:
                one_frame(found, Path(folder), side, options.model, options.memory)
        else:
            for count in options.counts:
                many_frames(found, Path(folder), count)
    finish(found, options)


def one_frame(found: Run, folder: Path, side: int, model: str, memory: str) -> None:
    """Cut a frame, and compare with the whole."""
    stack = folder / f"frame{side}.tif"
    write_frame(stack, side)
    path = str(make_threshold_model(folder / "t.onnx")) if model == "threshold" else model
    output = folder / f"out{side}"
    begin = time.perf_counter()
    peak, planned = run([str(stack), "--model", path, "--output", str(output), "--memory", memory])
    seconds = time.perf_counter() - begin
    labels = zarr.open_array(output / f"{stack.stem}.zarr/labels/{model}/0", mode="r")[0]
    count, equal = compare(stack, labels, model == "threshold")
    if not equal:
        raise SystemExit(f"{side} x {side} px: labels differ from SciPy's on the whole frame")
    row = f"{side:,} x {side:,} px, {model}"
    found.add(f"{row}/time", "s", [seconds])
    found.add(f"{row}/time a megapixel", "s", [seconds / (side * side / 1e6)])
    found.add(f"{row}/peak", "MB", [peak / MB])
    found.add(f"{row}/planned", "MB", [planned / MB])
    found.add(f"{row}/objects", "", [count])


def write_frame(path: Path, side: int) -> None:
    """A tiled TIFF of synthetic nuclei, made tile by tile."""
    lapse = TimeLapse(shape=(1, side, side), seed=1)

    def tiles() -> Iterator[NDArray[np.uint16]]:
        for y in range(0, side, TILE):
            height = min(TILE, side - y)
            row, _ = lapse.region(0, (y, y + height), (0, side))
            for x in range(0, side, TILE):
                tile = np.zeros((TILE, TILE), np.uint16)
                part = row[:, x : x + TILE]
                tile[: part.shape[0], : part.shape[1]] = part
                yield tile

    tifffile.imwrite(
        path, tiles(), shape=(1, side, side), dtype=np.uint16, tile=(TILE, TILE),
        compression="lzw", metadata={"axes": "TYX"}, bigtiff=True,
    )  # fmt: skip


def compare(stack: Path, labels: NDArray[Any], by_threshold: bool) -> tuple[int, bool]:
    """Objects, and whether SciPy gives the same labels for the whole frame."""
    mask = labels > 0
    if by_threshold:
        frame = tifffile.imread(stack).reshape(labels.shape)
        low, high = np.percentile(frame, (1, 99.8), method="inverted_cdf").astype(np.float32)
        mask = np.concatenate(
            [(frame[y : y + 500] - low) / (high - low) >= 0.5 for y in range(0, len(frame), 500)]
        )
    count = ndimage.label(mask, np.ones((3, 3)), output=(whole := np.empty(mask.shape, np.uint32)))
    return int(count), bool(np.array_equal(whole, labels))


def run(arguments: list[str]) -> tuple[int, int]:
    """Peak bytes of a job, which is one process, and the bytes planned."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom engine.cli import main\n"
        "try: main()\n"
        "finally:\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    print(next(line for line in lines if line.startswith('VmHWM')), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, "segment", *arguments, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    output = Path(arguments[arguments.index("--output") + 1])
    report = JobFolder(output).report()
    assert report is not None
    return int(done.stderr.split()[-2]) * 1024, report.predicted.memory_bytes


def many_frames(found: Run, folder: Path, count: int) -> None:
    """Run; and once more, killed half way and resumed."""
    model = make_threshold_model(folder / "t.onnx")
    stack = link_frames(folder / f"frames{count}", count)
    arguments = [str(stack), "--model", str(model), "--workers", "2", "--output"]
    peak, planned = run([*arguments, str(folder / f"whole{count}")])
    report = JobFolder(folder / f"whole{count}").report()
    assert report is not None
    private = folder / f"whole{count}/.stackseg"
    records = sum(p.stat().st_size for p in (private / "records").rglob("*") if p.is_file())
    resumed = seconds_to_resume([*arguments, str(folder / f"killed{count}")])
    row = f"{count:,} frames"
    found.add(f"{row}/rate", "frames/s", [report.frames_per_second])
    found.add(f"{row}/peak", "MB", [peak / MB])
    found.add(f"{row}/planned", "MB", [planned / MB])
    found.add(f"{row}/records", "MB", [records / MB])
    found.add(f"{row}/first block after a kill", "s", [resumed])


def link_frames(path: Path, count: int) -> Path:
    """Frames that share the bytes of ten files."""
    path.mkdir()
    lapse = TimeLapse(shape=(10, *SHAPE), seed=2, density=600.0)
    for t in range(10):
        tifffile.imwrite(path / f"t{t:06d}.tif", lapse.frame(t)[0])
    for t in range(10, count):
        os.link(path / f"t{t % 10:06d}.tif", path / f"t{t:06d}.tif")
    return path


def seconds_to_resume(arguments: list[str]) -> float:
    """From the start of the command to the first new record, half of the blocks being there."""
    output = Path(arguments[-1])
    command = [sys.executable, "-m", "engine", "segment", *arguments, "--quiet"]
    job = JobFolder(output)
    total = 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not total:
        time.sleep(0.05)
        if (identity := job.identity()) is not None:
            ((name, stack),) = identity.stacks.items()
            total = stack.layout.n_blocks
    while len(job.numbers("records", name)) < total // 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(job.numbers("records", name))
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while len(job.numbers("records", name)) == before:
        time.sleep(0.01)
    seconds = time.perf_counter() - begin
    process.wait()
    return seconds


if __name__ == "__main__":
    main()
