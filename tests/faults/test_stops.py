"""Jobs that are interrupted, started twice, or find what a killed one left."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.campaigns import Undisturbed, finished
from tests.faults.harness import KILLED, LONG, Campaign, Process, assert_same, commits, slow


def until(done: Callable[[], bool], process: Process) -> None:
    end = time.monotonic() + LONG
    while not done():
        assert process.popen.poll() is None and time.monotonic() < end, "it ended or hangs"
        time.sleep(0.01)


def at_a_block(one: Campaign, gate: Path, *options: str) -> Process:
    """A run that has begun a block, and reads no frame until `gate` is there."""
    begun = len(one.noted("begin"))
    process = one.start(*options, wait=str(gate))
    until(lambda: len(one.noted("begin")) > begun, process)
    return process


@pytest.mark.parametrize(
    "kind", [slow("records/whole/000001"), "stitched/cut/000001", slow("levels/1/cut/000001")]
)
def test_half_a_record_is_no_record(tmp_path: Path, whole: Undisturbed, kind: str) -> None:
    one = Campaign(whole.job, tmp_path / "out")
    shutil.copytree(whole.output, one.output)
    (one.output / "job.json").unlink()
    record = one.output / f".stackseg/{kind}.json"
    record.write_bytes(record.read_bytes()[:40])
    staged = one.output / ".stackseg/staging/left"
    staged.parent.mkdir(exist_ok=True)
    staged.write_bytes(b"half")
    process = one.start()
    assert process.wait() == 0, process.err
    assert_same(one.output, whole.output)
    steps = {words[1:] for words in one.noted("begin")}
    if kind.startswith("records"):
        assert steps == {("segment", "whole", "1")}
    elif kind.startswith("levels"):  # what is made of it is made of the same bytes still
        assert steps == {("level-1", "cut", "1")}
    else:  # its parts are gone and needed, and its blocks bear the ids that it gives
        assert {stack for _, stack, _ in steps} == {"cut"}
        assert ("stitch", "cut", "1") in steps and ("stitch", "cut", "0") not in steps


def test_two_jobs_on_one_output(tmp_path: Path, whole: Undisturbed) -> None:
    gate = tmp_path / "gate"
    first, second = (Campaign(whole.job, tmp_path / "out") for _ in "ab")
    second.json_log = tmp_path / "second.events"
    processes = [one.start(wait=str(gate)) for one in (first, second)]
    end = time.monotonic() + LONG
    while all(p.popen.poll() is None for p in processes):
        assert time.monotonic() < end
        time.sleep(0.02)
    refused = next(p for p in processes if p.popen.poll() is not None)
    assert refused.wait() == 2
    (line,) = refused.err.strip().splitlines()
    assert line.startswith("stackseg: ") and "another job is writing here" in line
    gate.touch()
    (other,) = (p for p in processes if p is not refused)
    assert other.wait() == 0
    assert_same(first.output, whole.output)


def test_the_lock_of_a_killed_job_does_not_hold(tmp_path: Path, whole: Undisturbed) -> None:
    one = Campaign(whole.job, tmp_path / "out")
    process = at_a_block(one, tmp_path / "never")
    process.popen.kill()
    assert process.wait() == KILLED
    one.complete()
    finished(one, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, slow(signal.SIGTERM)])
def test_the_first_signal_lets_blocks_in_flight_finish(
    tmp_path: Path, whole: Undisturbed, number: int
) -> None:
    one, gate = Campaign(whole.job, tmp_path / "out"), tmp_path / "gate"
    process = at_a_block(one, gate)
    process.popen.send_signal(number)
    until((one.output / ".stackseg/stop").exists, process)
    gate.touch()
    assert process.wait() == 130
    assert "run the same command again" in process.err
    begun = len(one.noted("begin"))
    # All that was begun is committed, and there is more to do.
    assert len(commits(one.output)) == begun < 61
    one.complete()
    assert one.redone == 0
    finished(one, whole)


def test_the_second_ctrl_c_ends_it_at_once(tmp_path: Path, whole: Undisturbed) -> None:
    one = Campaign(whole.job, tmp_path / "out")
    process = at_a_block(one, tmp_path / "never")
    process.popen.send_signal(signal.SIGINT)
    until((one.output / ".stackseg/stop").exists, process)
    process.popen.send_signal(signal.SIGINT)
    assert process.wait() == 130  # though its reads would never end
    assert "stopped at once" in process.err
    one.complete()
    assert not [w for w in one.log.read_text().splitlines() if w.startswith("child")]  # no death
    finished(one, whole)


def test_sigterm_ends_it_within_grace(tmp_path: Path, whole: Undisturbed) -> None:
    one = Campaign(whole.job, tmp_path / "out")
    process = at_a_block(one, tmp_path / "never", "--grace", "1")
    process.popen.send_signal(signal.SIGTERM)
    assert process.wait() == 130  # though its reads would never end
    assert "unfinished at the end of --grace" in process.err
    one.complete()
    finished(one, whole)


@pytest.mark.parametrize("how", ["term", slow("group"), slow("kill")])
def test_no_child_outlives_its_job(tmp_path: Path, whole: Undisturbed, how: str) -> None:
    one = Campaign(whole.job, tmp_path / "out")
    kill = {"point": "read", "nth": 1, "token": str(tmp_path / "token")}
    assert one.run(kill=kill).popen.returncode == KILLED
    process = one.start("--grace", "1", wait=str(tmp_path / "never"))
    until(lambda: any(w.startswith("child") for w in one.log.read_text().splitlines()), process)
    if how == "term":
        process.popen.send_signal(signal.SIGTERM)
    elif how == "group":  # as a terminal does, twice
        os.killpg(process.popen.pid, signal.SIGINT)
        until((one.output / ".stackseg/stop").exists, process)
        os.killpg(process.popen.pid, signal.SIGINT)
    else:
        process.popen.kill()
    assert process.wait() == (KILLED if how == "kill" else 130)  # and waits for its children
    one.complete()
    finished(one, whole)
