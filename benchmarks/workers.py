"""One core and several, as threads, processes and a cluster: `python -m benchmarks.workers`.

    python -m benchmarks.workers [--counts 1 2] [--frames 40] [--repeats 2] [--save] [--json FILE]

threads    one process, a block in flight for each core
processes  a job array, a process for each core (`--array-task I/N`), all started at once
cluster    Dask workers of one thread, that wait already, and a client (`--scheduler`)

Each worker may use one core and no other. Frames of 700 x 1100 px, the bundled network by ONNX
Runtime in fp32; seconds from process start to exit. All leave the same bytes, or it is said.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks import frames as of
from benchmarks.record import Run, add_options, finish, taking_turns

SEGMENT = [sys.executable, "-m", "engine", "segment"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--model", default="nuclei")
    options = add_options(parser, repeats=2).parse_args()
    run = Run("workers", notes={"frames": options.frames, "shape": of.SHAPE})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        measure(run, Path(folder), opened, options)
    finish(run, options)


def measure(run: Run, folder: Path, opened: ExitStack, options: argparse.Namespace) -> None:
    """All by turns."""
    stack = of.write(folder / "frames.tif", of.crowded(min(10, options.frames)), options.frames)
    job = [str(stack), "--model", options.model, "--quiet", "--runtime", "onnxruntime"]
    variants: dict[str, Callable[[], None]] = {}
    for count in options.counts:
        scheduler = opened.enter_context(cluster(folder, count))
        ways = {"threads": threads, "processes": processes, "cluster": partial(by, scheduler)}
        for name, way in ways.items():
            output = folder / f"{name}-{count}"
            variants[f"{count} core(s)/{name}"] = partial(way, job, output, count)
    found = taking_turns(variants, options.repeats)
    for name, seconds in found.items():
        run.add(name, "s", seconds)
    for kind in ("threads", "processes", "cluster"):
        one, *more = (found[f"{count} core(s)/{kind}"] for count in options.counts)
        for count, several in zip(options.counts[1:], more, strict=True):
            gains = [a / b for a, b in zip(one, several, strict=True)]
            run.add(f"{count} over {options.counts[0]}/{kind}", "times as fast", gains)
    contents = {contents_of(path) for path in folder.glob("*-*/*.zarr")}
    run.notes["labels"] = "the same bytes" if len(contents) == 1 else "NOT THE SAME BYTES"


def threads(job: Sequence[str], output: Path, count: int) -> None:
    """A job in one process."""
    wait([start([*SEGMENT, *job, "--output", str(output), "--fresh"], range(count))])


def processes(job: Sequence[str], output: Path, count: int) -> None:
    """The tasks of a job array."""
    place = Path(tempfile.mkdtemp(dir=output.parent)) / "out"  # there is no --fresh for a task
    command = [*SEGMENT, *job, "--output", str(place), "--workers", "1"]
    tasks = (f"{task + 1}/{count}" for task in range(count))
    wait([start([*command, "--array-task", name], [n]) for n, name in enumerate(tasks)])
    if not output.exists():
        place.rename(output)


def by(scheduler: Path, job: Sequence[str], output: Path, count: int) -> None:
    """A job on a cluster."""
    command = [*SEGMENT, *job, "--output", str(output), "--fresh", "--scheduler", str(scheduler)]
    wait([start(command, range(count))])


@contextmanager
def cluster(folder: Path, count: int) -> Iterator[Path]:
    """The scheduler file of a cluster with a worker for each core."""
    file = folder / f"scheduler-{count}.json"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1",
            "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]  # fmt: skip
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file),
              "--nthreads", "1", "--nworkers", "1", "--no-dashboard", "--no-nanny",
              "--local-directory", str(folder / "dask")]  # fmt: skip
    everything = [start(dask, range(count), quiet=True)]
    try:
        while not file.exists():
            time.sleep(0.05)
        everything += [start(worker, [core], quiet=True) for core in range(count)]
        yield file
    finally:
        for process in everything:
            process.terminate()
        for process in everything:
            process.wait()


def start(
    command: Sequence[str], on: Sequence[int], quiet: bool = False
) -> subprocess.Popen[bytes]:
    """A process that may use so many of this one's cores, by their place."""
    mine = sorted(os.sched_getaffinity(0))
    allowed = {mine[place] for place in on}
    sink = subprocess.DEVNULL if quiet else None
    env = os.environ | {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=sink, env=env,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )  # fmt: skip


def wait(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until all have ended; SystemExit where one failed."""
    if sum(abs(process.wait()) for process in processes):
        raise SystemExit("a job failed")


def contents_of(result: Path) -> str:
    """A hash of all files of a result."""
    digest = hashlib.sha256()
    for path in sorted(path for path in result.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(result)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
