"""Clusters that lose a worker or have a wrong one, and array tasks that are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_threshold_model
from tests.faults.campaigns import Undisturbed
from tests.faults.harness import (
    COMMAND,
    KILLED,
    Campaign,
    Process,
    assert_same,
    cluster,
    slow,
)
from tests.faults.test_stops import until


def test_a_job_survives_one_of_two_workers(tmp_path: Path, whole: Undisturbed) -> None:
    log = tmp_path / "workers.log"
    told = {"layout": whole.job.layout, "log": str(log)}
    # The one that is killed is at a frame it would never have read: its block is in flight.
    stuck = {**told, "wait": str(tmp_path / "never")}
    with cluster(tmp_path, (told, stuck)) as workers:
        workers.await_workers(2)
        one = Campaign(whole.job, tmp_path / "out")
        process = one.start("--scheduler", str(workers.file))
        pid = str(workers.workers[1].pid)
        until(lambda: log.exists() and f" {pid} read" in log.read_text(), process)
        os.kill(int(pid), signal.SIGKILL)
        assert process.wait() == 0, process.err
    one.check_events()
    assert_same(one.output, whole.output)


@pytest.mark.parametrize("what", [slow("version"), "model"])
def test_a_worker_that_would_give_other_results_is_refused(
    tmp_path: Path, whole: Undisturbed, what: str
) -> None:
    other = make_threshold_model(tmp_path / "other.onnx", description="another")
    wrong = {"version": "9.9"} if what == "version" else {"model": str(other)}
    told: dict[str, Any] = {"layout": whole.job.layout}
    with cluster(tmp_path, (told, {**told, **wrong})) as workers:
        workers.await_workers(2)
        process = Campaign(whole.job, tmp_path / "out").run("--scheduler", str(workers.file))
    assert process.popen.returncode in (2, 3)
    last = process.err.strip().splitlines()[-1]
    assert last.startswith("stackseg: ") and "Traceback" not in process.err
    if what == "version":
        assert "runs stackseg 9.9" in last and "install the same version" in last
    else:
        assert str(whole.job.model) in last and "is another file on this worker" in last


def array_task(whole: Undisturbed, output: Path, number: int, **faults: Any) -> Process:
    """Start array task `number` of three."""
    command = whole.job.command(output, "--array-task", f"{number}/3", "--workers", "1")
    return Process(command, {"layout": whole.job.layout, **faults})


def merge(whole: Undisturbed, output: Path) -> Process:
    """Run `stackseg merge` to its end."""
    process = Process([*COMMAND, "merge", str(output)], {"layout": whole.job.layout})
    process.wait()
    return process


def test_three_array_tasks_at_once(tmp_path: Path, whole: Undisturbed) -> None:
    output = tmp_path / "out"
    processes = [array_task(whole, output, number) for number in (1, 2, 3)]
    for process in processes:
        assert process.wait() == 0, process.err
    assert_same(output, whole.output)


@pytest.mark.slow
def test_a_killed_array_task_is_run_again(tmp_path: Path, whole: Undisturbed) -> None:
    output = tmp_path / "out"
    kill = {"point": "record", "nth": 2, "token": str(tmp_path / "token"), "role": "main"}
    killed = array_task(whole, output, 1, kill=kill)
    others = [array_task(whole, output, number) for number in (2, 3)]
    assert killed.wait() == KILLED
    for process in others:
        assert process.wait() == 0, process.err
    assert not (output / "job.json").exists()
    refused = merge(whole, output)
    assert refused.popen.returncode == 2
    (line,) = refused.err.strip().splitlines()
    assert "not all array tasks are done (block(s)" in line and "of whole" in line
    again = array_task(whole, output, 1)
    assert again.wait() == 0, again.err
    assert_same(output, whole.output)


def test_an_array_task_that_is_missing_is_named(tmp_path: Path, whole: Undisturbed) -> None:
    output = tmp_path / "out"
    for process in [array_task(whole, output, number) for number in (1, 2)]:
        assert process.wait() == 0 and "other array tasks are not done yet" in process.err
    refused = merge(whole, output)
    assert refused.popen.returncode == 2
    # Of 4 + 12 + 6 blocks, the third task's are numbers 2, 5, 8, ... of all.
    named = "block(s) 2 of whole; block(s) 1, 4, 7, 10 of cut; block(s) 1, 4 of planes"
    assert named in refused.err
    last = array_task(whole, output, 3)
    assert last.wait() == 0, last.err
    assert_same(output, whole.output)
    again = merge(whole, output)
    assert again.popen.returncode == 0 and "already complete" in again.err
    (output / "frames.csv").unlink()
    shutil.rmtree(output / ".stackseg" / "levels" / "1" / "cut")
    (lost,) = (output / ".stackseg" / "records" / "whole").glob("*2*")
    shutil.move(lost, tmp_path / "lost")
    refused = merge(whole, output)
    assert refused.popen.returncode == 2 and "(block(s) 2 of whole)" in refused.err
    assert (output / "job.json").exists()  # nothing was taken away
    shutil.move(tmp_path / "lost", lost)
    mended = merge(whole, output)
    assert mended.popen.returncode == 0 and "was complete, and is no longer" in mended.err
    assert_same(output, whole.output)


@pytest.mark.parametrize("point", [slow("stitch-2"), "level", slow("tables"), slow("work")])
def test_merge_completes_what_the_last_array_task_could_not(
    tmp_path: Path, whole: Undisturbed, point: str
) -> None:
    output = tmp_path / "out"
    for process in [array_task(whole, output, number) for number in (1, 2)]:
        assert process.wait() == 0, process.err
    kill = {"point": point, "nth": 1, "token": str(tmp_path / "token")}
    assert array_task(whole, output, 3, kill=kill).wait() == KILLED
    assert not (output / "job.json").exists()
    done = merge(whole, output)
    assert done.popen.returncode == 0, done.err
    assert_same(output, whole.output)
    assert json.loads((output / "job.json").read_bytes())["status"] == "complete"
