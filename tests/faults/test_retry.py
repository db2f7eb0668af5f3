"""Frames that are done again: whenever that is ended, nothing goes stale."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.store.local_store import LocalStore
from tests.engine import jobs
from tests.faults.harness import LAYOUT, slow


@pytest.mark.parametrize(
    ("shape", "axes", "removals"),
    [
        slow((4, 30, 32), "TYX", 2),
        ((2, 50, 60), "TYX", 6),
        slow((2, 3, 40, 44), "TZYX", 5),
    ],
    ids=["whole", "cut", "connected"],
)
def test_a_retry_that_is_ended_in_the_middle(
    tmp_path: Path,
    threshold_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    axes: str,
    removals: int,
) -> None:
    for name, value in LAYOUT.items():
        monkeypatch.setattr(name, value)
    data = jobs.blobs(shape).astype(np.float32)
    damaged = data.copy()
    damaged[(1,) * (data.ndim - 2)] = np.nan  # t = 1, and z = 1 where there is a Z
    stack = jobs.write_stack(tmp_path / "stack.tif", damaged, axes)
    connect = "z" if "Z" in axes else "none"

    def job(output: Path, retry: bool = False) -> int:
        settings = jobs.settings(
            stack, threshold_model, output, connect=connect, retry_failed=retry,
            keep="probability", with_image=True,
        )  # fmt: skip
        return run_job(settings, executor=SerialExecutor()).exit_status

    assert job(tmp_path / "failed") == 1
    jobs.write_stack(stack, data, axes)
    assert job(tmp_path / "whole") == 0
    whole = jobs.contents(tmp_path / "whole")
    delete = LocalStore.delete
    stop, ended = 0, False
    while not ended:  # after each removal in turn, until there is none left to end at
        stop += 1
        output, count = tmp_path / f"out-{stop}", 0
        shutil.copytree(tmp_path / "failed", output)

        def dies(self: LocalStore, key: str, *, durable: bool = True) -> None:
            nonlocal count
            was_there = durable and self.exists(key)  # attempts and stops are not
            delete(self, key, durable=durable)
            count += was_there
            if was_there and count == stop:  # noqa: B023 - called in this turn alone
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "delete", dies)
            with contextlib.suppress(KeyboardInterrupt):
                ended = job(output, retry=True) == 0
        # The command without the option: complete either way, with what is on record.
        assert ended or job(output) in (0, 1)
        assert job(output, retry=True) == 0
        assert jobs.contents(output) == whole
    assert stop > removals
