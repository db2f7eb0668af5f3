"""A block of whole frames makes its own levels: the bytes that the steps of levels make of it."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.geometry import arrays as arrays_module
from engine.geometry import layout as layout_module
from engine.geometry.arrays import IMAGE, arrays_of, shard_bytes
from engine.geometry.layout import make_layout
from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.plan.memory import _block_bytes
from engine.results.verify.run import verify_job
from engine.steps.task import Outcome, Task
from engine.store.local_store import LocalStore
from tests.conftest import make_threshold_model
from tests.engine import jobs
from tests.engine.test_class_objects import class_model, random_classes

ODD = (45, 61)  # px: odd at level 0, and one side at level 1 as well


class Noted(SerialExecutor):
    """Notes the steps that it was given tasks of."""

    def __init__(self) -> None:
        self.steps: set[str] = set()

    def run(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
        """See `Executor`."""
        for outcome in super().run(tasks):
            self.steps.add(outcome.step)
            yield outcome


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small frames have two levels above the first, and two of them are a block."""
    monkeypatch.setattr(arrays_module, "SMALLEST", 16)
    monkeypatch.setattr(layout_module, "BLOCK_PIXELS", 2 * ODD[0] * ODD[1])


def written(folder: Path, kind: str) -> tuple[Path, Path, dict[str, Any]]:
    """A stack, a model, and options of a job that keeps all that it can."""
    options: dict[str, Any] = {"keep": "probability", "with_image": True}
    model = folder / "model.onnx"
    if kind == "classes":
        data, axes = random_classes((1, 5, *ODD), 1, 2)[0], "TYX"
        options["objects"] = "left,wall"
        class_model(model, name="threshold")
    else:
        make_threshold_model(model)
        axes = "TYX"
        data = jobs.blobs((5, *ODD))
        if kind == "channels":
            data, axes = jobs.blobs((3, 3, 2, *ODD)), "TZCYX"
            options["channel"] = "1"
        elif kind == "failed":
            data = data.astype(np.float32)
            data[1] = np.nan
    return jobs.write_stack(folder / "stack.tif", data, axes), model, options


def run(stack: Path, model: Path, output: Path, **options: Any) -> tuple[int, set[str]]:
    """A run of a job: its exit status, and the steps that had tasks."""
    noted = Noted()
    summary = run_job(jobs.settings(stack, model, output, workers=1, **options), executor=noted)
    return summary.exit_status, noted.steps


def above(output: Path) -> list[Path]:
    """Shards and records of levels from 1 on."""
    shards = (p for p in (output / "stack.zarr").rglob("c/**/*") if p.is_file())
    records = (output / ".stackseg/levels").rglob("*.json")
    return [*(p for p in shards if p.parts[p.parts.index("c", 3) - 1] != "0"), *records]


@pytest.mark.parametrize(
    ("kind", "blocks", "arrays"),
    [("failed", 3, 2), ("channels", 6, 2), ("classes", 3, 3)],
)
def test_levels_of_a_block_are_those_that_the_steps_make(
    tmp_path: Path, kind: str, blocks: int, arrays: int
) -> None:
    stack, model, options = written(tmp_path, kind)
    output, again = tmp_path / "out", tmp_path / "again"
    status = int(kind == "failed")
    assert run(stack, model, output, **options) == (status, {"segment"})
    shutil.copytree(output, again)
    lost = above(again)
    assert len(lost) == 2 * blocks * (arrays + 1)
    for path in lost:
        path.unlink()
    assert run(stack, model, again, **options) == (status, {"level-1", "level-2"})
    assert jobs.contents(again) == jobs.contents(output)
    assert verify_job(again).exit_status == 0


@pytest.mark.parametrize("retry", [False, True])
def test_a_block_that_is_ended_at_each_object_that_it_puts(tmp_path: Path, retry: bool) -> None:
    """The next run ends in the same bytes, and levels are never those of other labels."""
    stack, model, options = written(tmp_path, "failed")
    before, whole = tmp_path / "before", tmp_path / "whole"
    if retry:
        assert run(stack, model, before, **options)[0] == 1
        jobs.write_stack(stack, jobs.blobs((5, *ODD)).astype(np.float32))
    status = int(not retry)
    assert run(stack, model, whole, **options)[0] == status
    if not retry:
        before.mkdir()
    put = LocalStore.put
    steps: set[str] = set()
    for stop in itertools.count(1):
        output, count = tmp_path / f"out-{stop}", 0
        shutil.copytree(before, output)

        def dies(self: LocalStore, key: str, data: bytes, *, durable: bool = True) -> None:
            nonlocal count
            put(self, key, data, durable=durable)
            is_done = (durable and "000000" in key) or "/c/0/" in key  # of the first block
            count += is_done
            if is_done and count == stop:  # noqa: B023 - called in this turn alone
                raise KeyboardInterrupt

        ended = False
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(LocalStore, "put", dies)
            run(stack, model, output, **options, retry_failed=retry)
            ended = True
        if ended:
            break
        if retry:  # complete either way without the option: with what is on record
            assert run(stack, model, output, **options)[0] in (0, 1)
            assert verify_job(output).problems.to_list() == []
        found, done = run(stack, model, output, **options, retry_failed=retry)
        assert found == status
        assert jobs.contents(output) == jobs.contents(whole)
        steps |= done
        shutil.rmtree(output)
    # Shards, objects, timings and record of level 0; shards and record of each level above.
    assert stop - 1 == (3 + 1 + 1 + 1) + 2 * (2 + 1)
    assert retry or steps == {"segment", "level-1", "level-2"}


def test_a_block_tells_what_its_levels_took(tmp_path: Path) -> None:
    stack, model, options = written(tmp_path, "channels")
    run(stack, model, tmp_path / "out", **options)
    rows = pq.read_table(tmp_path / "out/timings.parquet").to_pylist()
    assert [(row["step"], row["index"]) for row in rows] == [("segment", n) for n in range(6)]
    assert all(row["levels_s"] > 0 and row["write_s"] > 0 for row in rows)


@pytest.mark.parametrize(("is_cut", "more"), [(False, 1 / 4 + 1 / 16), (True, 0)])
def test_pixels_of_levels_are_planned_for(
    monkeypatch: pytest.MonkeyPatch, is_cut: bool, more: float
) -> None:
    """Where frames are whole their levels are held as level 0 is, until they are encoded."""
    for name, value in (("BLOCK_PIXELS", 2000), ("REGION", 32), ("GRAIN", 8)):
        monkeypatch.setattr(layout_module, name, value)
    layout = make_layout("TYX", (2, 64, 64), instances=True, whole_frames=not is_cut)
    assert layout.is_cut == is_cut
    image = [a for a in arrays_of(layout, "labels/m", image=("uint16", 1)) if a.kind == IMAGE]
    first = shard_bytes(image[0], layout)
    assert _block_bytes(layout, tuple(image)) == first * (2 + 1 + 1 + more)


def test_array_tasks_leave_levels_to_the_one_that_ends_last(tmp_path: Path) -> None:
    """It takes the job for done once all blocks have records: nothing may be put after these."""
    model = make_threshold_model(tmp_path / "model.onnx")
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((7, *ODD)))
    run_job(jobs.settings(stack, model, tmp_path / "whole"))
    steps = []
    for number in (1, 2):
        noted = Noted()
        settings = jobs.settings(stack, model, tmp_path / "out", array_task=f"{number}/2")
        run_job(settings, executor=noted)
        steps.append(noted.steps)
    assert steps == [{"segment"}, {"segment", "level-1", "level-2"}]
    assert jobs.contents(tmp_path / "out") == jobs.contents(tmp_path / "whole")
