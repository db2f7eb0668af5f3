"""A job of real size that is killed, and one on a cluster of real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.job.job import run_job
from engine.store.committed import record_key
from engine.store.folder import JobFolder
from tests import networks
from tests.engine import jobs

COMMAND = [sys.executable, "-m", "engine"]


def slow_job(tmp_path: Path, frames: int) -> tuple[Path, Path]:
    """A stack and a model that take some seconds: 7 frames in each block."""
    network = networks.unet((8, 16, 16), seed=1, positive=False)
    model = networks.save(tmp_path / "model.onnx", network, networks.spec(network))
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((frames, 1024, 1152)))
    return stack, model


def start(stack: Path, model: Path, output: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [*COMMAND, "segment", str(stack), "--model", str(model), "--output", str(output)]
    command += options
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_blocks(output: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    while len(JobFolder(output).numbers("records", "stack")) < count:
        assert process.poll() is None and time.monotonic() < until, "the job ended or hung"
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_and_resumed_equals_undisturbed(tmp_path: Path) -> None:
    stack, model = slow_job(tmp_path, 24)
    output = tmp_path / "killed"
    process = start(stack, model, output)
    wait_for_blocks(output, 1, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    committed = JobFolder(output).numbers("records", "stack")
    records = [output / record_key("stack", i) for i in committed]
    before = [record.stat().st_mtime_ns for record in records]
    assert not (output / "job.json").exists()
    whole = tmp_path / "whole"
    run_job(jobs.settings(stack, model, whole))
    summary = run_job(jobs.settings(stack, model, output))
    assert summary.exit_status == 0
    assert [
        record.stat().st_mtime_ns for record in records
    ] == before  # no committed block was done again
    assert jobs.contents(output) == jobs.contents(whole)


def test_two_worker_processes_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, model = slow_job(tmp_path, 14)
    file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker"]
    local = ["--no-dashboard", "--scheduler-file", str(file), "--host", "127.0.0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    processes = [subprocess.Popen([*dask, *local, "--port", "0"], env=environment, **quiet)]  # type: ignore[call-overload]
    try:
        until = time.monotonic() + 60
        while not file.exists() or not json.loads(file.read_text() or "{}"):
            assert time.monotonic() < until
            time.sleep(0.1)
        for name in ("one", "two"):
            command = [*worker, *local, "--name", name, "--nthreads", "1", "--no-nanny"]
            processes.append(subprocess.Popen(command, env=environment, **quiet))  # type: ignore[call-overload]
        output, whole = tmp_path / "cluster", tmp_path / "whole"
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")  # the workers run in another folder
        job = jobs.settings(f"../{stack.name}", model, output, scheduler=str(file))
        summary = run_job(job)
        assert summary.exit_status == 0
        run_job(jobs.settings(stack, model, whole))
        assert jobs.contents(output) == jobs.contents(whole)
    finally:
        for process in processes:
            process.kill()
            process.wait(30)
