"""The order in which objects reach the disk: flushed, renamed, folder flushed; records last."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import layout
from engine.executors import SerialExecutor
from engine.job import run_job
from engine.records import JobFolder
from tests.engine import jobs
from tests.faults.harness import LAYOUT, three_kinds

Event = tuple[str, Path]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """What is asked of the disk, in order: ("put", path), ("flush", path), ("rename", path)."""
    events: list[Event] = []
    fsync, replace, staged = os.fsync, os.replace, JobFolder.staged

    def told_fsync(handle: int) -> None:
        events.append(("flush", Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    def told_replace(source: Any, target: Any, **more: Any) -> None:
        events.append(("staged", Path(source)))
        events.append(("rename", Path(target)))
        replace(source, target, **more)

    @contextlib.contextmanager
    def told_staged(self: JobFolder, path: Path) -> Iterator[Path]:
        events.append(("put", path))
        with staged(self, path) as place:
            yield place

    monkeypatch.setattr(os, "fsync", told_fsync)
    monkeypatch.setattr(os, "replace", told_replace)
    monkeypatch.setattr(JobFolder, "staged", told_staged)
    return events


@pytest.fixture
def output(tmp_path: Path, disk: list[Event], monkeypatch: pytest.MonkeyPatch) -> Path:
    job = three_kinds(tmp_path)
    for name, value in LAYOUT.items():
        monkeypatch.setattr(layout, name, value)
    settings = jobs.settings(
        list(job.inputs), job.model, tmp_path / "out", axes="TZYX", connect="z"
    )
    assert run_job(settings, executor=SerialExecutor()).exit_status == 0
    return tmp_path / "out"


def test_every_object_is_flushed_then_renamed_then_its_folder_flushed(
    output: Path, disk: list[Event]
) -> None:
    renames = [i for i, (what, _) in enumerate(disk) if what == "rename"]
    put = {path for what, path in disk if what == "put"}
    assert len(renames) > 100
    # Nothing gets into place but by a rename.
    assert {p.name for p in output.rglob("*") if p.is_file()} - {p.name for p in put} == {"lock"}
    for i in renames:
        staged, target = disk[i - 1][1], disk[i][1]
        assert disk[i - 2] == ("flush", staged), target
        assert disk[i + 1] == ("flush", target.parent), target


def test_a_record_begins_when_its_data_is_on_the_disk(output: Path, disk: list[Event]) -> None:
    private = output / ".stackseg"
    committed = 0
    for stack in ("whole", "cut", "planes"):
        for record in sorted((private / "records" / stack).iterdir()):
            n = int(record.stem)
            data = [p for what, p in disk if what == "put" and _is_data(p, output, stack, n)]
            assert data
            begin = disk.index(("put", record))
            for path in data:
                renamed = disk.index(("rename", path))
                assert disk[renamed + 1] == ("flush", path.parent) and renamed + 1 < begin, path
            committed += 1
        for record in (private / "canvases" / stack).glob("*.json"):
            path = private / "objects" / stack / f"{record.stem}.parquet"
            renamed = disk.index(("rename", path))
            assert disk[renamed + 1] == ("flush", path.parent)
            assert renamed + 1 < disk.index(("put", record))
    assert committed == 4 + 12 + 6
    order = [p.name for what, p in disk if what == "rename" and p.parent == output]
    assert order[-1] == "job.json" and len(order) == len(set(order)) == 6


def _is_data(path: Path, output: Path, stack: str, block: int) -> bool:
    """Whether an object is the shard, or the measures, of a block."""
    zarr = output / f"{stack}.zarr/labels/threshold/0/c"
    if path.is_relative_to(zarr):
        shapes = {"whole": (4, 1, 1, 1), "cut": (2, 1, 2, 3), "planes": (1, 6, 1, 1)}
        place = [int(part) for part in path.relative_to(zarr).parts]
        number = 0
        for at, size in zip(place, shapes[stack], strict=True):
            number = number * size + at
        return number == block
    if stack == "whole":
        return path == output / f".stackseg/objects/{stack}/{block:06d}.parquet"
    kinds = (("labels", "shard"), ("parts", "npz"))
    return any(path == output / f".stackseg/work/{k}/{stack}/{block:06d}.{s}" for k, s in kinds)
