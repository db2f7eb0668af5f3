"""Inputs that are links: they keep the names that they are given, and are never written over."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import zarr
from click.testing import CliRunner

from engine.cli import stackseg
from engine.errors import OutputError
from engine.job.job import merge_job, run_job
from engine.job.prepare import prepare_job
from engine.job.relabel import relabel
from engine.stacks.inputs import given_path
from engine.store.folder import IDENTITY, REPORT, JobFolder
from tests.engine import jobs
from tests.engine.jobs import Shuffled, labels_of


@pytest.fixture
def annex(tmp_path: Path) -> Path:
    """A store of data as git-annex has it: the file's name says nothing."""
    (tmp_path / "annex").mkdir()
    path = tmp_path / "annex" / "MD5E-s8454--83aa.tif"
    return jobs.write_stack(path, jobs.blobs((3, 40, 50)))


def link(target: Path, *names: str) -> list[Path]:
    for name in names:
        (target.parents[1] / name).symlink_to(target)
    return [target.parents[1] / name for name in names]


def names_of(inputs: Any, model: Path, **options: Any) -> list[str]:
    """Names of the stacks that a job would have; nothing may be refused."""
    plan = prepare_job(jobs.settings(inputs, model, Path("out"), **options)).plan
    assert not plan.refused
    return [stack.name for stack in plan.stacks]


def test_two_links_to_one_file_are_two_stacks(
    tmp_path: Path, annex: Path, threshold_model: Path
) -> None:
    inputs = link(annex, "control.tif", "treated.tif")
    output = tmp_path / "out"
    summary = run_job(jobs.settings(inputs, threshold_model, output))
    assert (summary.exit_status, summary.frames_done) == (0, 6)
    report = json.loads((output / "job.json").read_text())
    assert [one["name"] for one in report["inputs"]] == ["control", "treated"]
    assert [one["path"] for one in report["inputs"]] == [str(path) for path in inputs]
    for name in ("control", "treated"):
        assert labels_of(output, name).any()


def test_links_in_other_places(
    tmp_path: Path, annex: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link(annex, "a.tif")
    (tmp_path / "linked").symlink_to(tmp_path / "annex")
    zarr.create_array(tmp_path / "annex/x1.zarr", data=jobs.blobs((2, 40, 50)), chunks=(1, 40, 50))
    (tmp_path / "annex/x2").mkdir()
    jobs.write_stack(tmp_path / "annex/x2/t0.tif", jobs.blobs((40, 50)), "YX")
    (tmp_path / "wt.zarr").symlink_to(tmp_path / "annex/x1.zarr")
    (tmp_path / "images").symlink_to(tmp_path / "annex/x2")
    monkeypatch.chdir(tmp_path)
    assert names_of(["wt.zarr"], threshold_model, axes="TYX") == ["wt"]
    assert names_of(["images", "a.tif"], threshold_model) == ["images", "a"]
    inside = [f"{folder}/{annex.name}" for folder in ("linked", "annex")]
    assert names_of(inside, threshold_model) == [f"linked/{annex.stem}", f"annex/{annex.stem}"]
    # A link without the suffix, as Galaxy has them, and one with: both are TIFFs.
    link(annex, "dataset_1.dat")
    assert names_of(["dataset_1.dat"], threshold_model) == ["dataset_1.dat"]


def test_one_path_by_several_spellings_is_one_stack(
    tmp_path: Path, stack: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    spellings = ["stack.tif", "./stack.tif", "there/../stack.tif", str(stack)]
    assert names_of(spellings, threshold_model) == ["stack"]


def test_above_a_link_lies_what_it_leads_to(
    tmp_path: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`link/../a.tif` is beside the folder that the link leads to, not beside the link."""
    (tmp_path / "far/data").mkdir(parents=True)
    far = jobs.write_stack(tmp_path / "far/a.tif", jobs.blobs((2, 40, 50)))
    near = jobs.write_stack(tmp_path / "a.tif", jobs.blobs((3, 40, 50)))
    (tmp_path / "link").symlink_to(tmp_path / "far/data")
    monkeypatch.chdir(tmp_path)
    assert given_path("link/../a.tif") == str(far)
    assert given_path("link/..") == str(tmp_path / "far")
    assert given_path("far/../a.tif") == str(near)
    assert given_path("far/../gone.tif") == str(tmp_path / "gone.tif")
    summary = run_job(jobs.settings("link/../a.tif", threshold_model, tmp_path / "out"))
    assert summary.frames_done == 2


def test_a_job_goes_on_under_any_spelling_of_its_input(
    tmp_path: Path, annex: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = link(annex, "a.tif")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/data").symlink_to(tmp_path)
    output = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    run_job(jobs.settings("a.tif", threshold_model, output))
    monkeypatch.chdir(tmp_path / "sub")
    for spelling in ("../a.tif", path, "data/a.tif"):
        assert run_job(jobs.settings(spelling, threshold_model, output)).already_complete
    # The data move within the annex, and the link with them.
    annex.rename(moved := annex.with_name("elsewhere.tif"))
    path.unlink()
    path.symlink_to(moved)
    assert run_job(jobs.settings(path, threshold_model, output)).already_complete


def test_another_file_of_the_same_name_size_and_time_is_another_input(
    tmp_path: Path, threshold_model: Path
) -> None:
    files = []
    for seed, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        file = jobs.write_stack(tmp_path / folder / "x.tif", jobs.blobs((2, 40, 50), seed))
        os.utime(file, (1, 1))
        files.append(file)
    run_job(jobs.settings(files[0], threshold_model, tmp_path / "out"))
    with pytest.raises(OutputError, match=r"input was .*a/x.tif and is .*b/x.tif now"):
        run_job(jobs.settings(files[1], threshold_model, tmp_path / "out"))


def test_a_job_that_recorded_what_a_path_leads_to_goes_on(
    tmp_path: Path, threshold_model: Path
) -> None:
    """An input is the same under every path that leads to it."""
    (tmp_path / "data").mkdir()
    jobs.write_stack(tmp_path / "data/x.tif", jobs.blobs((2, 40, 50)))
    (tmp_path / "link").symlink_to(tmp_path / "data")
    output = tmp_path / "out"
    job = jobs.settings(tmp_path / "link/x.tif", threshold_model, output)
    run_job(job)
    identity = JobFolder(output).identity()
    assert identity is not None
    stack = identity.stacks["x"]
    assert stack.path == str(tmp_path / "link/x.tif")
    stack = stack.model_copy(update={"path": str(tmp_path / "data/x.tif")})
    identity = identity.model_copy(update={"stacks": {"x": stack}})
    JobFolder(output).put_record(IDENTITY, identity)
    (output / REPORT).unlink()  # which has the checksum of the identity
    again = run_job(job)
    assert again.exit_status == 0 and again.frames_in_this_run == 0
    assert run_job(job).already_complete


def test_shards_and_merging_keep_the_names(
    tmp_path: Path, annex: Path, threshold_model: Path, small_blocks: None
) -> None:
    inputs = link(annex, "control.tif", "treated.tif")
    output = tmp_path / "out"
    first = jobs.settings(inputs, threshold_model, output, array_task="1/2")
    run_job(first)
    second = jobs.settings(inputs, threshold_model, output, array_task="2/2")
    run_job(second)
    (output / "job.json").unlink()
    assert merge_job(JobFolder(output)).exit_status == 0
    report = json.loads((output / "job.json").read_text())
    assert [one["name"] for one in report["inputs"]] == ["control", "treated"]


def test_a_list_that_is_a_link_names_what_lies_beside_the_link(
    tmp_path: Path, annex: Path, threshold_model: Path
) -> None:
    """As it does when the job begins, and when a merge completes it."""
    link(annex, "control.tif")
    (tmp_path / "annex/list.txt").write_text("control.tif\n")
    (tmp_path / "list.txt").symlink_to(tmp_path / "annex/list.txt")
    output = tmp_path / "out"
    run_job(jobs.settings(f"@{tmp_path / 'list.txt'}", threshold_model, output))
    (output / "job.json").unlink()
    assert merge_job(JobFolder(output)).exit_status == 0


@pytest.mark.parametrize("fresh", [False, True])
def test_nothing_is_written_over_what_a_link_leads_to(
    tmp_path: Path, threshold_model: Path, fresh: bool
) -> None:
    data = jobs.blobs((2, 40, 50))
    store = tmp_path / "out/raw.zarr"
    zarr.create_array(store, data=data, chunks=(1, 40, 50))
    (tmp_path / "raw.zarr").symlink_to(store)
    inner = jobs.write_stack(tmp_path / "out/raw.zarr/inner.tif", data)
    (tmp_path / "raw.tif").symlink_to(inner)
    outer = jobs.write_stack(tmp_path / "outer.tif", data)
    (tmp_path / "out/raw.zarr/raw.tif").symlink_to(outer)
    before = jobs.contents(tmp_path)
    for given in ("raw.zarr", "raw.tif", "out/raw.zarr/raw.tif"):
        job = jobs.settings(
            tmp_path / given, threshold_model, tmp_path / "out", axes="TYX", fresh=fresh
        )
        with pytest.raises(OutputError, match="over the input"):
            run_job(job)
    assert jobs.contents(tmp_path) == before


def test_starting_over_never_removes_what_a_link_leads_to(
    tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    output = tmp_path / "out"
    run_job(jobs.settings(stack, threshold_model, output))
    (tmp_path / "linked").symlink_to(output)
    kept = output / "stack.zarr/kept.tif"
    kept.write_bytes(stack.read_bytes())
    (tmp_path / "other.tif").symlink_to(kept)
    for given in (tmp_path / "other.tif", tmp_path / "linked/stack.zarr/kept.tif"):
        with pytest.raises(OutputError, match=r"is an input that --fresh would remove"):
            run_job(jobs.settings(given, threshold_model, output, fresh=True))
    assert kept.exists()


def test_readers_of_a_result_find_a_linked_input(
    tmp_path: Path, annex: Path, threshold_model: Path
) -> None:
    (path,) = link(annex, "control.tif")
    output = tmp_path / "out"
    run_job(jobs.settings(path, threshold_model, output, keep="probability"))
    assert relabel(output, "again", threshold=0.6).exit_status == 0
    for command in (
        ["render", str(output / "control.zarr"), "--output", str(tmp_path / "movie.mp4")],
        ["evaluate", str(output), str(output / "control.zarr")],
        ["verify", str(output)],
    ):
        done = CliRunner().invoke(stackseg, command, standalone_mode=False)
        assert done.exception is None and not done.return_value, (command, done.output)


def test_a_retry_compares_under_any_spelling(
    tmp_path: Path, annex: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link(annex, "a.tif")
    monkeypatch.chdir(tmp_path)
    run_job(jobs.settings("a.tif", threshold_model, tmp_path / "out"))
    (tmp_path / "linked").symlink_to(tmp_path)
    again = jobs.settings(
        tmp_path / "linked/a.tif", threshold_model, tmp_path / "out", retry_failed=True
    )
    assert run_job(again).already_complete


def test_an_unfinished_job_goes_on_under_another_spelling(
    tmp_path: Path, annex: Path, threshold_model: Path, small_blocks: None
) -> None:
    link(annex, "a.tif")
    (tmp_path / "linked").symlink_to(tmp_path)
    job = jobs.settings(tmp_path / "a.tif", threshold_model, tmp_path / "out")
    with pytest.raises(Exception, match="disk is full"):
        run_job(job, executor=Shuffled(0, 0))
    other = jobs.settings(tmp_path / "linked/a.tif", threshold_model, tmp_path / "out")
    assert run_job(other).exit_status == 0
