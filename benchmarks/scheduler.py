"""Dask's scheduler under blocks that do nothing but wait: `python -m benchmarks.scheduler`.

    python -m benchmarks.scheduler [--slots 1000] [--seconds 8 4 2 1] [--duration 30]
                                   [--save] [--json FILE]

Blocks are handed out as a job hands them out: `DaskExecutor`, a window of two for each slot, real
tasks with their plan. Each waits as long as a block would take, so that 1,000 slots ask as often as
1,000 workers do. The scheduler has a process of its own; its processor time a task does not depend
on what else the machine does, and says at which rate one core is used up.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from benchmarks import frames as of
from benchmarks.record import Run, add_options, finish
from engine.job import executors
from engine.job.executors import DaskExecutor
from engine.job.job import job_context
from engine.job.prepare import prepare_job
from engine.plan.settings import JobSettings
from engine.steps.task import Outcome, Task

PROCESSES = 2  # of workers, which share the slots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slots", type=int, default=1000)
    parser.add_argument("--seconds", type=float, nargs="+", default=[8, 4, 2, 1], help="a block")
    parser.add_argument("--duration", type=float, default=30, help="seconds for each")
    options = add_options(parser).parse_args()
    run = Run("scheduler", notes={"slots": options.slots, "duration_s": options.duration})
    with tempfile.TemporaryDirectory() as folder:
        task = block(Path(folder))
        for seconds in options.seconds:
            with cluster(Path(folder), options.slots) as (executor, scheduler):
                measure(run, executor, scheduler, task, seconds, options)
    finish(run, options)


def block(folder: Path) -> Task:
    """A task as a job has it: the plan of a stack travels with each."""
    stack = of.write(folder / "frames.tif", of.crowded(1), 100)
    settings = JobSettings(inputs=(str(stack),), model="nuclei", output=folder / "out", workers=1)
    job = prepare_job(settings)
    return Task(job_context(job, ""), job.plan.stacks[0], "segment", 0)


def wait(seconds: float, task: Task) -> Outcome:
    """What stands for a block."""
    time.sleep(seconds)
    return Outcome(task.stack.name, task.step, task.index, frames=1.0)


@contextmanager
def cluster(folder: Path, slots: int) -> Iterator[tuple[DaskExecutor, psutil.Process]]:
    """A scheduler and workers, each a process of its own."""
    from distributed import Client

    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    start = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1",
             "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]  # fmt: skip
    threads = str(max(slots // PROCESSES, 1))
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file),
              "--nthreads", threads, "--nworkers", "1", "--no-dashboard", "--no-nanny",
              "--memory-limit", "0", "--local-directory", str(folder)]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": Path.cwd()}
    processes = [subprocess.Popen(start, **quiet)]  # type: ignore[call-overload]
    try:
        processes += [subprocess.Popen(worker, **quiet) for _ in range(PROCESSES)]  # type: ignore[call-overload]
        with Client(scheduler_file=str(file), set_as_default=False, timeout=120) as client:
            client.wait_for_workers(PROCESSES, timeout=120)
            yield DaskExecutor(client), psutil.Process(processes[0].pid)
    finally:
        for process in processes:
            process.kill()  # a worker whose threads wait takes no signal to end
        for process in processes:
            process.wait()


def measure(
    run: Run, executor: DaskExecutor, scheduler: psutil.Process, task: Task, seconds: float,
    options: argparse.Namespace,
) -> None:  # fmt: skip
    """Tasks a second once all slots are full, and the scheduler's time for each."""
    own = executors.run_task
    executors.run_task = lambda one: wait(seconds, one)  # type: ignore[assignment]
    try:
        outcomes = executor.run(replace(task, index=i) for i in itertools.count())
        for _ in itertools.islice(outcomes, options.slots):  # the first wave
            pass
        begin, busy, done = time.perf_counter(), sum(scheduler.cpu_times()[:2]), 0
        while time.perf_counter() - begin < options.duration:
            next(outcomes)
            done += 1
        lasted = time.perf_counter() - begin
        used = sum(scheduler.cpu_times()[:2]) - busy
        outcomes.close()
    finally:
        executors.run_task = own
    name = f"blocks of {seconds:g} s"
    run.add(f"{name}/asked", "tasks/s", [options.slots / seconds])
    run.add(f"{name}/done", "tasks/s", [done / lasted])
    run.add(f"{name}/scheduler", "ms of a core a task", [1000 * used / done])
    run.add(f"{name}/scheduler busy", "of a core", [used / lasted])


if __name__ == "__main__":
    main()
