"""The order in which objects reach the disk: flushed, renamed, folder flushed; records last."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.store.local_store import LocalStore
from tests.engine import jobs
from tests.faults.harness import LAYOUT, three_kinds

Event = tuple[str, Path]


class Done(NamedTuple):
    """A job, and what was asked of the disk in order.

    Events are ("put", path), ("staged", path), ("flush", path) and ("rename", path).
    """

    output: Path
    disk: list[Event]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A job of stacks of three kinds with all that can be kept of them, done once for all tests."""
    folder = tmp_path_factory.mktemp("fsync")
    job, output = three_kinds(folder), folder / "out"
    settings = jobs.settings(
        list(job.inputs), job.model, output, axes="TZYX", connect="z", keep="probability",
        with_image=True,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in LAYOUT.items():
            patch.setattr(name, value)
        disk = watched(patch)
        assert run_job(settings, executor=SerialExecutor()).exit_status == 0
    return Done(output, disk)


def watched(patch: pytest.MonkeyPatch) -> list[Event]:
    """What is asked of the disk from now on."""
    events: list[Event] = []
    fsync, replace, staged = os.fsync, os.replace, LocalStore._staged
    is_durable = True  # else what is put need not outlive the machine

    def told_fsync(handle: int) -> None:
        events.append(("flush", Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    def told_replace(source: Any, target: Any, **more: Any) -> None:
        if is_durable:
            events.append(("staged", Path(source)))
            events.append(("rename", Path(target)))
        replace(source, target, **more)

    @contextlib.contextmanager
    def told_staged(self: LocalStore, key: str, *, durable: bool = True) -> Iterator[Path]:
        nonlocal is_durable
        if durable:
            events.append(("put", self.root / key))
        is_durable = durable
        with staged(self, key, durable=durable) as place:
            yield place
        is_durable = True

    patch.setattr(os, "fsync", told_fsync)
    patch.setattr(os, "replace", told_replace)
    patch.setattr(LocalStore, "_staged", told_staged)
    return events


def test_every_object_is_flushed_then_renamed_then_its_folder_flushed(done: Done) -> None:
    output, disk = done
    renames = [i for i, (what, _) in enumerate(disk) if what == "rename"]
    put = {path for what, path in disk if what == "put"}
    assert len(renames) > 200
    # Nothing gets into place but by a rename.
    assert {p.name for p in output.rglob("*") if p.is_file()} - {p.name for p in put} == {"lock"}
    for i in renames:
        staged, target = disk[i - 1][1], disk[i][1]
        assert disk[i - 2] == ("flush", staged), target
        assert disk[i + 1] == ("flush", target.parent), target


# Blocks along T, Z, Y, X of each stack, level by level.
GRIDS = {
    "whole": [(4, 1, 1, 1), (4, 1, 1, 1)],
    "cut": [(2, 1, 2, 3), (2, 1, 1, 2), (2, 1, 1, 1)],
    "planes": [(1, 6, 1, 1), (1, 6, 1, 1)],
}


@pytest.mark.parametrize("stack", GRIDS)
def test_a_record_begins_when_its_data_is_on_the_disk(done: Done, stack: str) -> None:
    private = done.output / ".stackseg"
    place = f"{stack}/{{:06d}}"
    for level, grid in enumerate(GRIDS[stack]):
        kind = f"levels/{level}" if level else "records"
        for n, at in enumerate(np.ndindex(*grid)):
            record = private / f"{kind}/{place.format(n)}.json"
            data = [*shards(done.output, stack, level, at)]
            if not level and stack == "whole":
                data.append(private / f"objects/{place.format(n)}.parquet")
            elif level:  # of whole frames its own block's below, else all that are below
                below = f"levels/{level - 1}" if level > 1 else "records"
                of = [n] if stack == "whole" else range(math.prod(GRIDS[stack][level - 1]))
                data += [private / f"{below}/{place.format(i)}.json" for i in of]
            else:
                part = private / f"work/parts/{place.format(n)}.json"
                kept = [private / f"work/labels/{place.format(n)}.shard", part.with_suffix(".npz")]
                on_disk_before(part, [*data[1:], *kept], done.disk)
                data.append(part)
            on_disk_before(record, data, done.disk)
        assert len(list((private / kind / stack).iterdir())) == math.prod(grid)
    for record in (private / "stitched" / stack).glob("*.json"):
        objects = private / f"objects/{stack}/{record.stem}.parquet"
        on_disk_before(record, [objects], done.disk)


def shards(output: Path, stack: str, level: int, at: tuple[int, ...]) -> Iterator[Path]:
    """Shards of a block, labels first."""
    arrays = ["labels/threshold/{}", "{}", *(["probability/threshold/{}"] if not level else [])]
    for array in arrays:
        yield output / f"{stack}.zarr" / array.format(level) / "/".join(("c", *map(str, at)))


def on_disk_before(record: Path, data: list[Path], disk: list[Event]) -> None:
    begin = disk.index(("put", record))
    for path in data:
        renamed = disk.index(("rename", path))
        assert disk[renamed + 1] == ("flush", path.parent) and renamed + 1 < begin, path


def test_the_job_ends_with_job_json(done: Done) -> None:
    order = [p.name for what, p in done.disk if what == "rename" and p.parent == done.output]
    assert order[-1] == "job.json" and len(order) == len(set(order)) == 8
