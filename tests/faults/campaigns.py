"""Many kills of one kind, and what they cost: for the slow tests and for `benchmarks/kills.py`.

Each campaign raises AssertionError where a byte differs, a committed block is done again, or
anything is left behind.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.harness import (
    KILLED,
    LONG,
    Campaign,
    Cluster,
    Job,
    Process,
    assert_same,
    cluster,
    three_kinds,
)
from tests.faults.points import COORDINATOR, ONCE


@dataclass
class Tally:
    """What a campaign came to."""

    point: str
    who: str
    kills: int = 0
    runs: int = 0  # of the command, until every job of the campaign was complete
    jobs: int = 0
    blocks: int = 0  # tasks of all jobs
    redone: int = 0  # tasks begun again, because they were in flight at a kill

    def add(self, one: Campaign) -> None:
        self.jobs += 1
        self.runs += one.runs
        self.blocks += one.blocks
        self.redone += one.redone


@dataclass(frozen=True)
class Undisturbed:
    """A job, its output when nothing went wrong, and how long that took."""

    job: Job
    output: Path
    seconds: float  # from the job's first event on


def undisturbed(folder: Path) -> Undisturbed:
    """Make stacks and model, and run the job once."""
    one = Campaign(three_kinds(folder), folder / "whole")
    process = one.start()
    await_run(one, process)
    begin = time.monotonic()
    assert process.wait() == 0, process.err
    assert {"segment", "stitch", "finish", "level-1", "level-2"} <= {
        event["step"] for event in one.events()
    }
    return Undisturbed(one.job, one.output, time.monotonic() - begin)


def kill_coordinator(whole: Undisturbed, folder: Path, point: str, kills: int) -> Tally:
    """SIGKILL at a point, again and again, with the same command run after each."""
    tally = Tally(point, "coordinator")
    # The first time is always reached; where a job has less left than that, it is completed.
    nths = itertools.cycle([1] if point in ONCE else [1, 2, 1, 3, 1])
    while tally.kills < kills:
        one = Campaign(whole.job, folder / f"{point}-{tally.jobs}")
        before = tally.kills
        while True:
            fault = {}
            if tally.kills < kills:
                nth = 1 if tally.kills == before else next(nths)
                fault = {"kill": _kill(folder, point, nth, f"{tally.jobs}-{one.runs}", "main")}
            status = one.run(**fault).popen.returncode
            if status == 0:
                break
            assert status == KILLED and fault
            tally.kills += 1
        assert tally.kills > before, f"{point} was never reached"
        finished(one, whole)
        tally.add(one)
    return tally


def kill_in_turn(whole: Undisturbed, folder: Path) -> Tally:
    """One job that is killed once at every point, in the order in which it comes to them."""
    tally, one = Tally("every point in turn", "coordinator"), Campaign(whole.job, folder / "turn")
    for point in COORDINATOR:
        status = one.run(kill=_kill(folder, point, 1, "turn", "main")).popen.returncode
        assert status == KILLED, f"{point} was not reached"
        tally.kills += 1
    one.complete()
    finished(one, whole)
    tally.add(one)
    return tally


def kill_at_random(whole: Undisturbed, folder: Path, kills: int, seed: int = 0) -> Tally:
    """SIGKILL to the coordinator after random sleeps."""
    tally, rng = Tally("any moment", "coordinator"), random.Random(seed)
    while tally.kills < kills:
        one = Campaign(whole.job, folder / f"random-{tally.jobs}")
        while True:
            process = one.start()
            if tally.kills < kills:
                await_run(one, process)
                time.sleep(rng.uniform(0, whole.seconds / 2))
                process.popen.send_signal(signal.SIGKILL)
            status = process.wait()
            one.check_commits()
            if status == 0:
                break
            assert status == KILLED
            tally.kills += 1
        finished(one, whole)
        tally.add(one)
    return tally


def await_run(one: Campaign, process: Process) -> None:
    """Wait until a run has got as far as its first event, or has ended."""
    begun = one.json_log.stat().st_size if one.json_log.exists() else 0
    until = time.monotonic() + LONG
    while process.popen.poll() is None:
        if one.json_log.exists() and one.json_log.stat().st_size > begun:
            return
        assert time.monotonic() < until
        time.sleep(0.005)


def finished(one: Campaign, whole: Undisturbed) -> None:
    """A completed campaign has the bytes of the undisturbed run, and did nothing twice."""
    assert_same(one.output, whole.output)
    one.check_events()


# -- workers of a cluster --------------------------------------------------------------------------


def kill_workers(whole: Undisturbed, folder: Path, point: str, kills: int) -> Tally:
    """SIGKILL to one of two workers at a point; the job goes on by itself, with a new worker."""
    tally = Tally(point, "worker")
    tokens = (folder / f"worker-{point}-{n}" for n in itertools.count())
    nths = itertools.cycle([1, 2, 1, 3, 1])
    log = folder / f"workers-{point}.log"

    def faults() -> dict[str, Any]:
        kill = {"point": point, "nth": next(nths), "token": str(next(tokens)), "role": "main"}
        told: dict[str, Any] = {"layout": whole.job.layout, "log": str(log)}
        return {**told, "kill": kill} if tally.kills < kills else told

    with cluster(folder, ({"layout": whole.job.layout, "log": str(log)}, faults())) as workers:
        while tally.kills < kills:
            one, process = _on_cluster(whole, folder / f"{point}-{tally.jobs}", workers, log)
            for _ in _killed_by_themselves(one, process, workers):
                tally.kills += 1
                workers.add(faults())
            finished(one, whole)
            tally.add(one)
            assert tally.jobs <= 3 * kills, f"{point} is hardly ever reached"
    return tally


def _on_cluster(
    whole: Undisturbed, output: Path, workers: Cluster, log: Path
) -> tuple[Campaign, Process]:
    workers.await_workers(2)
    log.unlink(missing_ok=True)
    one = Campaign(whole.job, output)
    one.log = log  # the coordinator itself runs no task
    return one, one.start("--scheduler", str(workers.file))


def _killed_by_themselves(one: Campaign, process: Process, workers: Cluster) -> Iterator[None]:
    """Tells each worker that is gone, until the job has completed by itself."""
    until = time.monotonic() + 2 * LONG
    while process.popen.poll() is None:
        assert time.monotonic() < until, "the job hangs"
        yield from _bury(workers)
        time.sleep(0.01)
    assert process.wait() == 0, process.err
    one.check_commits()
    yield from _bury(workers)


def _bury(workers: Cluster) -> Iterator[None]:
    for worker in [w for w in workers.workers if w.poll() is not None]:
        assert worker.returncode == KILLED
        workers.workers.remove(worker)
        yield


def kill_workers_at_random(whole: Undisturbed, folder: Path, kills: int, seed: int = 0) -> Tally:
    """SIGKILL to one of two workers after random sleeps."""
    tally, rng = Tally("any moment", "worker"), random.Random(seed)
    log = folder / "workers.log"
    faults = {"layout": whole.job.layout, "log": str(log)}
    with cluster(folder, (faults, faults)) as workers:
        while tally.kills < kills:
            one, process = _on_cluster(whole, folder / f"random-{tally.jobs}", workers, log)
            await_run(one, process)
            time.sleep(rng.uniform(0, whole.seconds / 2))
            if process.popen.poll() is None:
                os.kill(rng.choice(workers.workers).pid, signal.SIGKILL)
            for _ in _killed_by_themselves(one, process, workers):
                tally.kills += 1
                workers.add(faults)
            assert_same(one.output, whole.output)
            tally.add(one)
            assert tally.jobs <= 3 * kills, "jobs end before anybody is killed"
    return tally


def _kill(folder: Path, point: str, nth: int, name: str, role: str) -> dict[str, Any]:
    token = folder / f"token-{point}-{name}"
    return {"point": point, "nth": nth, "token": str(token), "role": role}
