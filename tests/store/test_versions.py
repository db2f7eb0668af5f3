"""A job's folder that another release left: refused in one sentence, and its labels still read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.cli import stackseg
from engine.errors import OutputError
from engine.job.job import merge_job, run_job
from engine.job.relabel import relabel
from engine.results.verify.run import verify_job
from engine.store.folder import IDENTITY, REPORT, JobFolder
from engine.store.records import RecordVersionError
from tests.engine import jobs


@pytest.fixture
def old(tmp_path: Path, threshold_model: Path) -> Path:
    """The folder of a complete job, with records as the release before versions wrote them."""
    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((3, 40, 50)))
    output = tmp_path / "out"
    run_job(jobs.settings(stack, threshold_model, output, keep="probability"))
    for key in (IDENTITY, REPORT):
        content = json.loads((output / key).read_bytes())
        del content["version"]
        (output / key).write_text(json.dumps(content))
    return output


def test_whoever_needs_the_records_refuses_them(
    tmp_path: Path, old: Path, threshold_model: Path
) -> None:
    settings = jobs.settings(tmp_path / "stack.tif", threshold_model, old, keep="probability")
    before = jobs.contents(old)
    for use in (
        lambda: run_job(settings),
        lambda: run_job(settings.model_copy(update={"retry_failed": True})),
        lambda: merge_job(JobFolder(old)),
        lambda: relabel(old, "again"),
        lambda: verify_job(old),
    ):
        with pytest.raises(RecordVersionError, match="was written by another version of stackseg"):
            use()
    assert jobs.contents(old) == before
    with pytest.raises(OutputError, match=r"identity.json.*use that version for this job, or"):
        run_job(settings)
    assert run_job(settings.model_copy(update={"fresh": True})).exit_status == 0
    assert verify_job(old).exit_status == 0


def invoke(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(stackseg, [str(one) for one in arguments], standalone_mode=False)
    sentence = "" if done.exception is None else str(done.exception)
    assert "\n" not in sentence
    return int(done.exception is not None or bool(done.return_value)), sentence


def test_readers_take_the_zarr_alone(tmp_path: Path, old: Path) -> None:
    store, made = old / "stack.zarr", tmp_path / "made"
    image = ("--image", tmp_path / "stack.tif")
    for command in (
        ("render", store, "--output", tmp_path / "movie.gif", *image),
        ("convert", store, "--to", "tiff", "--output", made),
        ("evaluate", store, store),
        ("inspect", store),
    ):
        assert invoke(*command) == (0, ""), command
    for command in (
        ("render", old, "--output", tmp_path / "other.gif"),
        ("convert", old, "--to", "tiff", "--output", tmp_path / "other"),
        ("evaluate", old, store),
        ("inspect", old),
    ):
        status, sentence = invoke(*command)
        assert status and "another version of stackseg" in sentence, command
    (old / REPORT).unlink()  # frames that are still to be done would pass for empty ones
    status, sentence = invoke("render", store, "--output", tmp_path / "third.gif", *image)
    assert status and "another version of stackseg" in sentence
