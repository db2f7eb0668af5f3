"""What is lost or damaged of a complete job is made again, with what was made of it: no more."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import FrameError, JobStopped
from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.results.verify.run import verify_job
from engine.stacks.units import UnitStack
from engine.steps.task import Outcome, Task
from tests.engine import jobs
from tests.faults.harness import LAYOUT, Job, slow, three_kinds

Step = tuple[str, str, int]  # step, stack, number
ALL_PLANES = {
    ("stitch", "planes", 0),
    *((step, "planes", n) for step in ("segment", "finish") for n in range(6)),
}  # fmt: skip


class Noted(SerialExecutor):
    """Notes what it was given to do."""

    def __init__(self) -> None:
        self.done: set[Step] = set()

    def run(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
        """See `Executor`."""
        for outcome in super().run(tasks):
            self.done.add((outcome.step, outcome.stack, outcome.index))
            yield outcome


def run(job: Job, output: Path, status: int = 0, *, retry: bool = False) -> set[Step]:
    """A run of a job in this process; what it did."""
    settings = jobs.settings(
        list(job.inputs), job.model, output, axes="TZYX", connect="z", keep="probability",
        with_image=True, retry_failed=retry,
    )  # fmt: skip
    noted = Noted()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in LAYOUT.items():
            patch.setattr(name, value)
        assert run_job(settings, executor=noted).exit_status == status
    return noted.done


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Path]:
    """A job, and its output, of which tests take a copy."""
    folder = tmp_path_factory.mktemp("complete")
    job = three_kinds(folder)
    run(job, folder / "out")
    return job, folder / "out"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("lost", "made"),
    [
        ("cut.zarr/labels/threshold/1/c/0/0/0/1", {("level-1", "cut", 1)}),
        slow("cut.zarr/1/c/1/0/0/0", {("level-1", "cut", 2)}),
        slow(".stackseg/levels/2/cut/000001.json", {("level-2", "cut", 1)}),
        ("whole.zarr/probability/threshold/0/c/1/0/0/0", {("segment", "whole", 1)}),
        slow("whole.zarr/0/c/3/0/0/0", {("segment", "whole", 3)}),
        ("planes.zarr/probability/threshold/0/c/0/2/0/0", ALL_PLANES),
    ],
)
def test_what_is_lost_costs_itself(
    tmp_path: Path, complete: tuple[Job, Path], lost: str, made: set[Step]
) -> None:
    """What was made of it is not done again: it was made of the same bytes."""
    job, output = complete
    copy = Path(shutil.copytree(output, tmp_path / "out"))
    (copy / lost).unlink()
    assert run(job, copy) == made
    assert jobs.contents(copy) == jobs.contents(output)


def test_a_level_is_not_made_of_damaged_bytes(tmp_path: Path, complete: tuple[Job, Path]) -> None:
    job, output = complete
    copy = Path(shutil.copytree(output, tmp_path / "out"))
    flip(copy / "cut.zarr/labels/threshold/1/c/0/0/0/1")
    (copy / ".stackseg/levels/2/cut/000000.json").unlink()
    with pytest.raises(JobStopped, match=r"labels/threshold/1/c/0/0/0/1: its SHA-256 differs"):
        run(job, copy)
    assert run(job, copy) == {("level-1", "cut", 1), ("level-2", "cut", 0)}
    assert jobs.contents(copy) == jobs.contents(output)


def test_verify_reads_every_array_and_level(tmp_path: Path, complete: tuple[Job, Path]) -> None:
    copy = Path(shutil.copytree(complete[1], tmp_path / "out"))
    assert verify_job(copy).exit_status == 0
    arrays = ("0", "1", "2", "labels/threshold/0", "labels/threshold/1", "labels/threshold/2")
    damaged = {
        f"{stack}.zarr/{array}/c/0/0/0/0"
        for stack in ("whole", "cut", "planes")
        for array in (*arrays, "probability/threshold/0")
        if stack == "cut" or not array.endswith("2")
    }
    for name in damaged:
        flip(copy / name)
    assert {one["path"] for one in verify_job(copy).problems.to_list()} >= damaged


@contextlib.contextmanager
def damaged(stack: Path, frame: int) -> Iterator[None]:
    """One frame of a file cannot be read, along T or Z."""
    read = UnitStack._read

    def failing(self: UnitStack, t: int, z: int, *rest: Any) -> Any:
        if Path(self.info.path) == stack and t + z == frame:
            raise FrameError(f"{stack}: is damaged")
        return read(self, t, z, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UnitStack, "_read", failing)
        yield


def test_levels_of_frames_done_again_are_made_anew_and_no_others(
    tmp_path: Path, complete: tuple[Job, Path]
) -> None:
    job, output = complete
    copy = tmp_path / "out"
    with contextlib.ExitStack() as until_mended:
        for stack, frame in zip(job.inputs, (3, 1, 2), strict=True):
            until_mended.enter_context(damaged(stack, frame))
        run(job, copy, 1)
    before, whole = jobs.contents(copy), jobs.contents(output)
    done = run(job, copy, retry=True)
    assert jobs.contents(copy) == whole

    def changed(stack: str, level: int, *at: int) -> bool:
        """Whether labels or pixels of a block are others than before."""
        place = "/".join(("c", *map(str, at)))
        names = [f"{stack}.zarr/{array}{level}/{place}" for array in ("", "labels/threshold/")]
        return any(before[name] != whole[name] for name in names)

    below: dict[Step, list[tuple[int, ...]]] = {  # blocks of two by two, as the level was halved
        **{("level-1", "planes", n): [(0, 0, n, 0, 0)] for n in range(6)},
        **{("level-2", "cut", t): [(1, t, 0, 0, x) for x in range(2)] for t in range(2)},
    }
    for t in range(2):
        for x, columns in enumerate(((0, 1), (2,))):
            sources = [(0, t, 0, y, column) for y in range(2) for column in columns]
            below["level-1", "cut", 2 * t + x] = sources
    expected = {one for one, at in below.items() if any(changed(one[1], *a) for a in at)}
    assert {one for one in done if one[0].startswith("level")} == expected
    assert {("level-1", "cut", 2), ("level-2", "cut", 1)} <= expected
    assert {one for one in done if one[1] == "whole"} == {("segment", "whole", 1)}  # has its levels
    assert not {("level-1", "cut", 0), ("level-1", "cut", 1), ("level-2", "cut", 0)} & expected
