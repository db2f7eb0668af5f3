"""What is done behind the network, in core-ms a frame: `python -m benchmarks.stages`.

    python -m benchmarks.stages [--repeats 7] [--frames 20] [--save] [--json FILE]
    python -m benchmarks.stages --profile raw|lzw         # where a job's own thread is
    python -m benchmarks.stages --compare A.json B.json

Whole jobs on frames of 700 x 1100 px with 300 nuclei, one block after the other, with a network
that gives at once what it gave before. Times are those of the processor, of all threads, so that a
machine that others use changes them little. "read" to "levels" are the stages that a job times, in
its own thread; "rest" is what no stage covers: hashes, records, other threads.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import engine.job.attempts
import engine.steps.network
from benchmarks import frames as of
from benchmarks.record import Run, add_options, compare, finish
from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.model.file import open_model
from engine.plan.settings import JobSettings
from engine.steps.task import Outcome, Stopwatch, Task

UNIT = "core-ms a frame"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--profile", choices=of.KINDS)
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("A", "B"))
    options = add_options(parser, repeats=7).parse_args()
    if options.compare:
        print(compare(*options.compare))
        return
    network = known_network()
    with tempfile.TemporaryDirectory() as folder, costing_nothing(network):
        stacks = {
            kind: of.write(Path(folder) / f"{kind}.tif", FRAMES, options.frames, kind)
            for kind in of.KINDS
        }
        if options.profile:
            profile(stacks[options.profile], Path(folder) / "out")
            return
        run = measured(stacks, Path(folder) / "out", options.frames, options.repeats)
        run.notes["left a frame"] = left_by_a_frame(Path(folder), options.frames)
    finish(run, options)


FRAMES = of.crowded(10)


def known_network() -> of.KnownNetwork:
    """The bundled network's answers for FRAMES."""
    return of.KnownNetwork(open_model("nuclei"), FRAMES)


@contextmanager
def costing_nothing(network: of.KnownNetwork) -> Iterator[None]:
    """Jobs of this process take `network` for their session."""
    own = engine.steps.network.session_of
    engine.steps.network.session_of = lambda *_: network  # type: ignore[assignment,return-value]
    try:
        yield
    finally:
        engine.steps.network.session_of = own


class Timed:
    """A serial executor that sums the processor's time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def run(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
        """See `engine.job.executors.Executor`."""
        for task in tasks:
            begin = time.process_time()
            outcomes = list(SerialExecutor().run(iter([task])))
            self.seconds += time.process_time() - begin
            yield from outcomes


@contextmanager
def timed_stages() -> Iterator[dict[str, float]]:
    """Seconds of the processor by stage, instead of those of the wall clock."""
    seconds: dict[str, float] = defaultdict(float)
    own = Stopwatch.stage

    @contextmanager
    def stage(self: Stopwatch, name: str) -> Iterator[None]:
        self.on_stage()
        begin = time.thread_time()
        try:
            yield
        finally:
            seconds[name] += time.thread_time() - begin

    Stopwatch.stage = stage  # type: ignore[method-assign,assignment]
    try:
        yield seconds
    finally:
        Stopwatch.stage = own  # type: ignore[method-assign]


def job(stack: Path, output: Path, executor: Any = None) -> Any:
    """A job on a stack, begun afresh."""
    settings = JobSettings(
        inputs=(str(stack),), model="nuclei", output=output, fresh=True, workers=1,
        runtime="onnxruntime",
    )  # fmt: skip
    return run_job(settings, executor=executor)


def measured(stacks: dict[str, Path], output: Path, n_frames: int, repeats: int) -> Run:
    """Every stage of every kind of stack; the kinds take turns, after one that does not count."""
    run = Run("stages")
    found: dict[str, list[float]] = defaultdict(list)
    for turn in range(repeats + 1):
        for kind, stack in stacks.items():
            executor = Timed()
            with timed_stages() as stages:
                summary = job(stack, output, executor)
            run.notes["objects a frame"] = summary.objects / n_frames
            if not turn:
                continue
            total = executor.seconds
            parts = {**stages, "rest": total - sum(stages.values()), "all": total}
            for name, seconds in parts.items():
                found[f"{kind}/{name}"].append(1000 * seconds / n_frames)
    for name, values in found.items():
        run.add(name, UNIT, values)
    return run


def left_by_a_frame(folder: Path, few: int) -> dict[str, float]:
    """What each frame adds to a job's folder: files, bytes, and tasks that were committed."""
    found = []
    for count in (5 * few, 10 * few):
        stack, output = of.write(folder / f"{count}.tif", FRAMES, count), folder / f"left{count}"
        job(stack, output)
        files = [path for path in output.rglob("*") if path.is_file()]
        found.append({
            "files": len(files),
            "bytes": sum(path.stat().st_size for path in files),
            "tasks": sum("timings" in path.parts for path in files),
        })  # fmt: skip
    return {name: (found[1][name] - found[0][name]) / (5 * few) for name in found[0]}


def profile(stack: Path, output: Path) -> None:
    """Print where the thread that does tasks spends the processor's time."""
    profiler = cProfile.Profile(time.thread_time)
    own = engine.job.attempts.carry_out

    def carry_out(*arguments: Any) -> Any:
        profiler.enable()
        try:
            return own(*arguments)
        finally:
            profiler.disable()

    job(stack, output, SerialExecutor())  # what is done once is no frame's
    engine.job.attempts.carry_out = carry_out  # type: ignore[assignment]
    job(stack, output, SerialExecutor())
    pstats.Stats(profiler).sort_stats("tottime").print_stats(50)


if __name__ == "__main__":
    main()
