"""`stackseg verify` on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from engine.cli import stackseg
from engine.errors import JobStopped
from engine.geometry import layout
from engine.job.job import run_job
from engine.results.verify.run import verify_job
from engine.store.claim import lock
from engine.store.folder import JobFolder
from tests.engine import jobs
from tests.engine.jobs import Shuffled
from tests.engine.verify.damage import (
    BLOCKS,
    REGIONS,
    TABLES,
    damaged,
    name,
    shards,
    text_of,
)


def command(*arguments: str) -> Any:
    return CliRunner().invoke(stackseg, ["verify", *arguments], standalone_mode=False)


def test_the_command_counts_what_is_fine(whole: Path) -> None:
    done = command(str(whole))
    objects = pq.read_table(whole / "objects.parquet").num_rows
    line = f"3 blocks, 8 frames (1 set aside), {objects:,} objects: all as recorded\n"
    assert (done.stdout, done.stderr, done.return_value) == (line, "", 0)
    done = command(str(whole), "--json")
    assert (json.loads(done.stdout), done.return_value) == ([], 0)


def test_the_command_names_what_is_not(whole: Path, tmp_path: Path) -> None:
    output = damaged(whole, tmp_path)
    path = shards(output)[1]
    path.unlink()
    done = command(str(output))
    assert done.return_value == 1
    assert (
        done.stdout == f"{name(output, path)}: stack stack, block 1, t=3..5: the labels are gone\n"
    )
    assert "1 problem in 3 blocks" in done.stderr
    (problem,) = json.loads(command(str(output), "--json").stdout)
    assert problem["path"] == name(output, path)
    assert (problem["kind"], problem["stack"], problem["index"]) == ("shard", "stack", 1)


def test_many_problems_are_capped(whole: Path, tmp_path: Path) -> None:
    output = damaged(whole, tmp_path)
    for number in range(100, 1105):
        (output / f".stackseg/objects/stack/{number:06d}.parquet").touch()
    done = command(str(output))
    assert "and 985 more of the kind 'stray'" in done.stdout
    assert len(done.stdout.splitlines()) == 21
    listed = json.loads(command(str(output), "--json").stdout)
    assert len(listed) == 1001 and listed[-1]["text"] == "and 5 more of the kind 'stray'"


def test_leftovers_are_named_as_harmless(whole: Path, tmp_path: Path) -> None:
    output = damaged(whole, tmp_path)
    for folder in ("staging", "work/parts"):
        (output / ".stackseg" / folder).mkdir(parents=True, exist_ok=True)
        (output / ".stackseg" / folder / "x").write_bytes(b"x")
    done = command(str(output))
    assert done.return_value == 0 and "all as recorded" in done.stdout
    assert ".stackseg/staging: 1 " in done.stderr and ".stackseg/work: 1 " in done.stderr


def test_no_job_and_a_job_that_runs(whole: Path, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        done = command(str(path))
        assert "holds no job" in str(done.exception) and done.exception.exit_status == 2
    with lock(JobFolder(whole)):
        done = command(str(whole))
    assert "another job is writing here" in str(done.exception)


@pytest.mark.parametrize("kind", ["whole", "volume"])
def test_an_unfinished_job(tmp_path: Path, threshold_model: Path, kind: str) -> None:
    axes, constants = ("TYX", BLOCKS) if kind == "whole" else ("ZYX", REGIONS)
    stack = jobs.write_stack(tmp_path / "s.tif", jobs.blobs((8, 40, 52)), axes=axes)
    output = tmp_path / "out"
    changes = {"connect": "z"} if kind == "volume" else {}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in constants.items():
            patch.setattr(layout, key, value)
        with pytest.raises(JobStopped):
            run_job(
                jobs.settings(stack, threshold_model, output, **changes), executor=Shuffled(1, 2)
            )
    text = text_of(output)
    assert len(text.splitlines()) == 1 and "blocks are not done" in text
    made = sorted((output / ".stackseg/work/labels").rglob("*.shard")) or [
        path for path in (output / "s.zarr").rglob("c/*/*/*") if path.is_file()
    ]
    if made:
        content = bytearray(made[0].read_bytes())
        content[5] ^= 1
        made[0].write_bytes(content)
        assert name(output, made[0]) in text_of(output)


def test_a_job_that_lacks_only_its_tables(whole: Path, tmp_path: Path) -> None:
    output = damaged(whole, tmp_path)
    for table in (*TABLES, "job.json"):
        (output / table).unlink()
    assert "all blocks are done, and the tables are not written" in text_of(output)
    done = command(str(output))
    assert done.return_value == 1 and "remove the files" not in done.stderr
    assert "its job is not complete; what it has written is as recorded, and the" in done.stderr


def test_a_job_whose_input_was_written_again(tmp_path: Path, threshold_model: Path) -> None:
    """Its identity is another one then, though no frame has changed."""
    stack, output = jobs.write_stack(tmp_path / "s.tif", jobs.blobs((2, 40, 52))), tmp_path / "out"
    run_job(jobs.settings(stack, threshold_model, output))
    before = (output / ".stackseg/identity.json").read_bytes()
    jobs.write_stack(stack, jobs.blobs((2, 40, 52)))
    assert run_job(jobs.settings(stack, threshold_model, output, retry_failed=True)).objects
    assert (output / ".stackseg/identity.json").read_bytes() != before
    assert verify_job(output).exit_status == 0
    (output / ".stackseg/identity.json").write_bytes(before)
    assert ".stackseg/identity.json: has changed since the end of the job" in text_of(output)
