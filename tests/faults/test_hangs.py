"""Reads that never end: each costs the limit and its frame, and neither the night nor the job."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr

from engine.errors import StackError, UsageError
from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.plan.settings import job_settings
from tests.conftest import make_threshold_model
from tests.engine import jobs
from tests.engine.jobs import labels_of
from tests.faults.harness import COMMAND, LAYOUT, Campaign, Job, Process, assert_same, cluster, slow
from tests.faults.test_decoders import failures
from tests.faults.test_stops import until

SECONDS = 1  # no read that does not hang is silent for so long here
LIMIT = ("--timeout", str(SECONDS))
FRAMES, BAD = 12, 5  # two frames to a block
SERIAL = """
import functools, engine.commands.running as running
from engine.cli import main
from engine.job.executors import SerialExecutor
running.run_job = functools.partial(running.run_job, executor=SerialExecutor())
main()
"""


@contextmanager
def pipe_at(path: Path) -> Iterator[None]:
    """A pipe that nobody writes to in place of a file, which comes back afterwards."""
    kept = path.with_name(f"{path.name}.kept")
    path.rename(kept)
    os.mkfifo(path)
    try:
        yield
    finally:
        kept.rename(path)


def zarr_job(folder: Path, version: int, shape: tuple[int, ...] = (FRAMES, 30, 32)) -> Job:
    data = jobs.blobs(shape)
    store = folder / "stack.zarr"
    array = zarr.create_array(
        store, shape=shape, chunks=(1, *shape[1:]), dtype=data.dtype, zarr_format=version
    )
    array[...] = data
    return Job((store,), make_threshold_model(folder / "model.onnx"), ("--axes", "TYX"))


def chunk(job: Job, frame: int) -> Path:
    (store,) = job.inputs
    return next(p for p in (store / f"c/{frame}/0/0", store / f"{frame}.0.0") if p.exists())


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A job of a Zarr array of 12 small frames, undisturbed."""
    return undisturbed(zarr_job(tmp_path_factory.mktemp("v2"), 2))


@pytest.fixture(scope="module")
def v3(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """The same in the newer format."""
    return undisturbed(zarr_job(tmp_path_factory.mktemp("v3"), 3))


def undisturbed(job: Job) -> Campaign:
    whole = Campaign(job, job.model.parent / "whole")
    whole.complete()
    return whole


def run(one: Campaign, executor: str, *options: str) -> Process:
    """One run to its end, by the executor of that name."""
    if executor == "cluster":
        folder = one.output.parent / f"dask-{one.runs}"
        folder.mkdir()
        faults = {"layout": one.job.layout, "log": str(one.log)}
        with cluster(folder, (faults,)) as workers:
            workers.await_workers(1)
            return ended(one, "--scheduler", str(workers.file), *options)
    if executor == "serial":
        command = [COMMAND[0], "-c", SERIAL, *one.job.command(one.output)[len(COMMAND) :]]
        process = Process([*command, *options], {"layout": one.job.layout, "log": str(one.log)})
        process.wait()
        return process
    return ended(one, "--workers", "2", *options)


def ended(one: Campaign, *options: str) -> Process:
    """One run to its end, which may write records of frames done again anew."""
    process = one.start(*options)
    process.wait()
    return process


def check_one_failed(one: Campaign, whole: Campaign, bad: int = BAD) -> None:
    """That frame is set aside by name, and every other is what it is without it."""
    (failed,) = failures(one.output)
    assert (failed["t"], failed["z"]) == (bad, 0)
    assert failed["reason"].startswith(f"did not end within {SECONDS} s, twice")
    found, wanted = labels_of(one.output, "stack"), labels_of(whole.output, "stack")
    assert not found[bad].any() and wanted[bad].any()
    others = [t for t in range(len(wanted)) if t != bad]
    assert np.array_equal(found[others], wanted[others])


@pytest.mark.parametrize(
    ("version", "executor"),
    [
        ("v2", "process"), ("v3", "cluster"), slow("v3", "serial"),
        slow("v2", "serial"), slow("v3", "process"), slow("v2", "cluster"),
    ],
)  # fmt: skip
def test_a_pipe_in_place_of_a_chunk_costs_its_frame(
    tmp_path: Path, request: pytest.FixtureRequest, version: str, executor: str
) -> None:
    twelve: Campaign = request.getfixturevalue(version)
    one = Campaign(twelve.job, tmp_path / "out")
    with pipe_at(chunk(twelve.job, BAD)):
        process = run(one, executor, *LIMIT)
    assert process.popen.returncode == 1, process.err
    assert "Traceback" not in process.err
    check_one_failed(one, twelve)
    rows = pq.read_table(one.output / "timings.parquet").to_pylist()
    (attempts,) = [r["attempts"] for r in rows if (r["step"], r["index"]) == ("segment", BAD // 2)]
    assert attempts == 3  # in the process, in one of its own, and there without the frame
    # The chunk is back: that frame is done, and the limit is no part of what the job is.
    again = ended(one, "--retry-failed")
    assert again.popen.returncode == 0, again.err
    assert_same(one.output, twelve.output)


def test_the_first_frame_hangs_before_the_job_begins(tmp_path: Path, v3: Campaign) -> None:
    one = Campaign(v3.job, tmp_path / "out")
    with pipe_at(chunk(v3.job, 0)):
        assert one.run(*LIMIT).popen.returncode == 1
    check_one_failed(one, v3, 0)
    # What was done hangs when it is compared, once the frame is mended: the job waits for no lock.
    with pipe_at(chunk(v3.job, 3)):
        again = ended(one, "--retry-failed", *LIMIT)
    assert again.popen.returncode == 2, again.err
    assert f"reading it again did not end within {SECONDS} s" in again.err
    assert again.err.count("\n") == 1


@pytest.mark.slow
def test_many_hang_at_once(tmp_path: Path, v3: Campaign) -> None:
    """More than a process would leave threads behind for, and more than zarr has threads."""
    one, bad = Campaign(v3.job, tmp_path / "out"), (1, 3, 5, 6, 7, 11)
    with ExitStack() as pipes:
        for frame in bad:
            pipes.enter_context(pipe_at(chunk(v3.job, frame)))
        assert one.run(*LIMIT, "--workers", "2").popen.returncode == 1
    assert [failed["t"] for failed in failures(one.output)] == list(bad)
    found, wanted = labels_of(one.output, "stack"), labels_of(v3.output, "stack")
    others = [t for t in range(FRAMES) if t not in bad]
    assert np.array_equal(found[others], wanted[others])


@pytest.mark.slow
def test_a_cut_frame_that_hangs_when_it_is_surveyed(tmp_path: Path) -> None:
    whole = undisturbed(zarr_job(tmp_path, 3, (3, 50, 60)))
    one = Campaign(whole.job, tmp_path / "out")
    with pipe_at(chunk(whole.job, 1)):
        assert one.run(*LIMIT).popen.returncode == 1
    check_one_failed(one, whole, 1)
    assert ended(one, "--retry-failed").popen.returncode == 0
    assert_same(one.output, whole.output)


def test_sigterm_ends_a_job_that_hangs_within_grace(tmp_path: Path, v3: Campaign) -> None:
    one = Campaign(v3.job, tmp_path / "out")
    with pipe_at(chunk(v3.job, BAD)):
        process = one.start("--grace", "1", "--timeout", "none")
        until(lambda: ("read", "stack", str(BAD), "0") in one.noted("read"), process)
        process.popen.send_signal(signal.SIGTERM)
        assert process.wait() == 130
    assert "unfinished at the end of --grace" in process.err


@pytest.fixture(scope="module")
def tiffs(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A job of three TIFFs, undisturbed."""
    return three_tiffs(tmp_path_factory.mktemp("tiffs"), (4, 30, 32))


@pytest.fixture(scope="module")
def cut_tiffs(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """The same of frames that are cut."""
    return three_tiffs(tmp_path_factory.mktemp("cut"), (4, 46, 48))


def three_tiffs(folder: Path, shape: tuple[int, ...]) -> Campaign:
    stacks = [
        jobs.write_stack(folder / f"{name}.tif", jobs.blobs(shape, seed=n))
        for n, name in enumerate("abc")
    ]
    return undisturbed(Job(tuple(stacks), make_threshold_model(folder / "m.onnx")))


def test_what_was_given_up_on_commits_nothing(tmp_path: Path, tiffs: Campaign) -> None:
    """It comes back while the same block is at work elsewhere, and has all it needs."""
    one, gate = Campaign(tiffs.job, tmp_path / "out"), tmp_path / "gate"
    gate.touch()
    # The process of its own waits for another file, so that the thread left behind is faster.
    hang = {"t": 1, "stack": "b", "while": str(gate), "role": "main"}
    process = one.start("--timeout", "2", "--workers", "1", hang=hang, slow={"seconds": 0.3})
    until(lambda: any(w.startswith("child") for w in lines(one.log)), process)
    gate.unlink()
    assert process.wait() == 0, process.err
    assert "it is tried once more, in a process of its own" in process.err
    assert any("goes on b" in line for line in lines(one.log))
    puts = Counter(words[2] for words in one.noted("put") if words[1] == "record")
    assert set(puts.values()) == {1}
    assert_same(one.output, tiffs.output)


@pytest.mark.parametrize("frames", ["cut_tiffs", slow("tiffs")])
def test_one_input_that_does_not_open_costs_its_frames(
    tmp_path: Path, request: pytest.FixtureRequest, frames: str
) -> None:
    """Its mount goes away while the job runs; the others are done."""
    tiffs: Campaign = request.getfixturevalue(frames)
    one, gate = Campaign(tiffs.job, tmp_path / "out"), tmp_path / "gate"
    gate.touch()
    process = one.run(*LIMIT, hang={"stack": "b", "while": str(gate)})
    assert process.popen.returncode == 1, process.err
    failed = failures(one.output)
    assert [(f["stack"], f["t"]) for f in failed] == [("b", t) for t in range(4)]
    assert all(f["reason"].startswith("its input could not be opened within") for f in failed)
    for name in "ac":
        assert np.array_equal(labels_of(one.output, name), labels_of(tiffs.output, name))
    assert ended(one, "--retry-failed").popen.returncode == 0
    assert_same(one.output, tiffs.output)


def test_a_read_that_takes_its_time_does_not_hang(tmp_path: Path, tiffs: Campaign) -> None:
    """The limit is on a silence: a block of many slow frames may take longer."""
    one = Campaign(replace(tiffs.job, inputs=tiffs.job.inputs[:1]), tmp_path / "out")
    limit = ("--timeout", "1.5")
    process = one.run(*limit, "--workers", "1", slow={"seconds": 0.8})  # two to a block
    assert process.popen.returncode == 0 and "tried once more" not in process.err
    assert np.array_equal(labels_of(one.output, "a"), labels_of(tiffs.output, "a"))


def test_limits_that_are_none(tmp_path: Path) -> None:
    for given in ("0", "-1", "nan", "soon", "inf"):
        with pytest.raises(UsageError, match=f"^--timeout: .*{given}"):
            job_settings(inputs=("a.tif",), model="nuclei", output=tmp_path, timeout=given)
    options = ["a.tif", "--model", "nuclei", "--output", str(tmp_path), "--timeout", "soon"]
    process = Process([*COMMAND, "segment", *options], {})
    assert process.wait() == 2 and process.err.startswith("stackseg: --timeout")


def folder_of_images(folder: Path, count: int = 4) -> Path:
    folder.mkdir()
    for n, frame in enumerate(jobs.blobs((count, 30, 32))):
        tifffile.imwrite(folder / f"t{n}.tif", frame)
    return folder


@pytest.mark.parametrize("kind", ["pipe", "link to nothing", "link to a pipe"])
@pytest.mark.parametrize("bad", [0, 2])
def test_what_is_no_file_among_images_is_named(tmp_path: Path, kind: str, bad: int) -> None:
    """It used to be passed over, and every later frame had the number of the one before."""
    images = folder_of_images(tmp_path / "images")
    at = images / f"t{bad}.tif"
    at.unlink()
    if kind == "pipe":
        os.mkfifo(at)
    elif kind == "link to nothing":
        at.symlink_to(tmp_path / "gone")
    else:
        os.mkfifo(tmp_path / "pipe")
        at.symlink_to(tmp_path / "pipe")
    model, output = make_threshold_model(tmp_path / "m.onnx"), tmp_path / "out"
    job = jobs.settings(images, model, output, timeout=SECONDS)
    if bad == 0:  # the others must be like the first
        with pytest.raises(StackError, match=re.escape(str(at))):
            run_job(job, executor=SerialExecutor())
        return
    assert run_job(job, executor=SerialExecutor()).exit_status == 1
    (failed,) = failures(output)
    assert failed["t"] == bad and str(at) in failed["reason"]


def test_an_input_that_does_not_open_is_refused_in_time(tmp_path: Path, tiffs: Campaign) -> None:
    """A Zarr group whose array has a pipe for its metadata."""
    group = zarr.open_group(tmp_path / "group.zarr", mode="w")
    group.create_array("0", data=jobs.blobs((2, 30, 32)))
    pipe = tmp_path / "pipe.tif"
    os.mkfifo(pipe)
    job = Job((*tiffs.job.inputs, tmp_path / "group.zarr", pipe), tiffs.job.model)
    one = Campaign(job, tmp_path / "out")
    with pipe_at(tmp_path / "group.zarr/0/zarr.json"):
        process = one.run(*LIMIT)
    assert process.popen.returncode == 1, process.err
    assert len(json.loads((one.output / "failures.json").read_bytes())["stacks"]) == 2
    assert f"{pipe}: is neither a file nor a folder" in process.err


def lines(path: Path) -> list[Any]:
    return path.read_text().splitlines() if path.exists() else []


assert LAYOUT["engine.geometry.layout.BLOCK_PIXELS"] // (30 * 32) == FRAMES // 6
