"""A frame whose reading ends the process: it costs that frame, and no other."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.conftest import make_threshold_model
from tests.engine import jobs
from tests.engine.jobs import labels_of
from tests.faults.harness import KILLED, Campaign, Job, assert_same, slow

SEGV = -signal.SIGSEGV
TWELVE = (12, 30, 32)


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A job of 12 small frames, undisturbed."""
    folder = tmp_path_factory.mktemp("twelve")
    whole = Campaign(job_of(folder, TWELVE), folder / "whole")
    whole.complete()
    return whole


def job_of(folder: Path, shape: tuple[int, ...]) -> Job:
    stack = jobs.write_stack(folder / "stack.tif", jobs.blobs(shape))
    return Job((stack,), make_threshold_model(folder / "model.onnx"))


def failures(output: Path) -> list[dict[str, Any]]:
    return list(json.loads((output / "failures.json").read_bytes())["frames"])


@pytest.mark.parametrize(
    ("shape", "bad", "step"),
    [
        (TWELVE, 5, "segment"),
        ((4, 50, 60), 2, "survey"),
        (TWELVE, 0, "segment"),  # which is also what a job looks at before it begins
    ],
)
def test_a_frame_that_crashes_its_decoder_is_set_aside(
    tmp_path: Path, twelve: Campaign, shape: tuple[int, ...], bad: int, step: str
) -> None:
    whole = twelve
    if shape != TWELVE:
        whole = Campaign(job_of(tmp_path, shape), tmp_path / "whole")
        whole.complete()
    one = Campaign(whole.job, tmp_path / "out")
    die = {"t": bad, "signal": int(signal.SIGSEGV)}
    for _ in range(1 if bad else 2):
        assert one.run(die=die).popen.returncode == SEGV
    assert one.run(die=die).popen.returncode == 1
    (failed,) = failures(one.output)
    assert (failed["t"], failed["z"]) == (bad, 0)
    assert "died" in failed["reason"] and "SIGSEGV" in failed["reason"]
    found, wanted = labels_of(one.output, "stack"), labels_of(whole.output, "stack")
    assert not found[bad].any() and wanted[bad].any()
    others = [t for t in range(shape[0]) if t != bad]
    assert np.array_equal(found[others], wanted[others])
    # It died three times in a process of its own; the task's last try was another.
    index = bad // 2 if step == "segment" else bad
    rows = pq.read_table(one.output / "timings.parquet").to_pylist()
    (attempts,) = [r["attempts"] for r in rows if (r["step"], r["index"]) == (step, index)]
    assert attempts == 4
    told = json.loads((one.output / "job.json").read_bytes())["attempts"]
    assert told[f"stack {step} {index}"] == 4
    # The fault is gone: that frame is done, and no other is read.
    one.log.unlink()
    again = one.start("--retry-failed")  # the records of its block are written anew
    assert again.wait() == 0, again.err
    assert {t for _, _, t, _ in one.noted("read")} == {str(bad)}
    assert_same(one.output, whole.output)


def test_a_reboot_costs_no_frame(tmp_path: Path, twelve: Campaign) -> None:
    one = Campaign(twelve.job, tmp_path / "out")
    for n in range(4):  # whoever does the first block goes down, and takes its children with it
        process = one.start(wait=str(tmp_path / "never"))
        while len(one.noted("begin")) <= n:
            assert process.popen.poll() is None
        process.popen.kill()
        assert process.wait() == KILLED
    one.complete()
    assert failures(one.output) == []
    assert_same(one.output, twelve.output)


@pytest.mark.parametrize("point", [slow("read"), "write", slow("record-half")])
def test_a_child_that_is_killed_does_its_block_again(
    tmp_path: Path, twelve: Campaign, point: str
) -> None:
    one = Campaign(twelve.job, tmp_path / "out")
    for role in ("main", "child"):
        token = tmp_path / role
        process = one.run(kill={"point": point, "nth": 1, "token": str(token), "role": role})
        assert token.exists()
        assert process.popen.returncode == (KILLED if role == "main" else 0), process.err
    assert_same(one.output, twelve.output)
