"""A disk that is full, and one that is gone in the middle of a job."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import JobStopped, OutputError
from engine.job.attempts import run_task
from engine.job.job import run_job
from engine.steps.task import Outcome, Task
from tests.engine import jobs
from tests.faults.campaigns import Undisturbed
from tests.faults.harness import Campaign, assert_same, slow
from tests.faults.test_stops import at_a_block

PAGE = 4096  # of a tmpfs, also for the smallest file


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty tmpfs of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"cannot mount: {error}")
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


@pytest.mark.parametrize("share", [slow(0.3), 0.6, slow(0.9)])
def test_a_full_disk_stops_the_job_and_room_lets_it_go_on(
    tmp_path: Path, whole: Undisturbed, disk: Path, share: float
) -> None:
    files = [p for p in whole.output.rglob("*") if p.is_file()]
    needed = sum(-(-p.stat().st_size // PAGE) * PAGE for p in files)
    resize(disk, int(needed * share))
    one = Campaign(whole.job, disk / "out")
    one.json_log, one.log = tmp_path / "events", tmp_path / "log"  # elsewhere: there is room
    stopped = one.run()
    assert stopped.popen.returncode == 3, stopped.err
    last = stopped.err.strip().splitlines()[-1]
    assert last.startswith("stackseg: ") and "the disk is full; make room" in last
    assert "Traceback" not in stopped.err and not (one.output / "job.json").exists()
    assert one.run().popen.returncode == 3  # it still is
    resize(disk, 2**26)
    one.complete()
    assert_same(one.output, whole.output)
    one.check_events()


def test_a_disk_that_is_gone_stops_the_job(tmp_path: Path, whole: Undisturbed, disk: Path) -> None:
    one = Campaign(whole.job, disk / "out")
    one.json_log, one.log = tmp_path / "events", tmp_path / "log"
    gate = tmp_path / "gate"
    process = at_a_block(one, gate)
    subprocess.run(["umount", "-l", str(disk)], check=True)
    gate.touch()
    assert process.wait() == 3, process.err
    last = process.err.strip().splitlines()[-1]
    assert last.startswith("stackseg: ") and "the same command" in last
    assert "Traceback" not in process.err
    assert list(disk.iterdir()) == []  # nothing was written to the folder beneath
    # What lay on the disk is lost with a tmpfs; the job starts over in the folder beneath.
    one.committed.clear()
    one.complete()
    assert_same(one.output, whole.output)


def test_a_block_that_begins_when_the_disk_is_full(
    tmp_path: Path, threshold_model: Path, disk: Path
) -> None:
    task = first_task(tmp_path, threshold_model, disk / "out")
    with pytest.raises(OSError), (disk / "filling").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(PAGE))
    with pytest.raises(OutputError, match="the disk is full; make room"):
        run_task(task)


def test_a_block_that_begins_when_the_folder_is_gone(tmp_path: Path, threshold_model: Path) -> None:
    task = first_task(tmp_path, threshold_model, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(JobStopped, match="is gone, perhaps with its disk"):
        run_task(task)
    assert not (tmp_path / "out").exists()


def first_task(folder: Path, model: Path, output: Path) -> Task:
    """A task of a job that has just begun."""
    kept: list[Task] = []

    class Keeps:
        def run(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
            kept.extend(tasks)
            raise OutputError("kept")
            yield

    stack = jobs.write_stack(folder / "stack.tif", jobs.blobs((3, 30, 32)))
    with pytest.raises(JobStopped, match="kept"):
        run_job(jobs.settings(stack, model, output), executor=Keeps())
    return kept[0]
