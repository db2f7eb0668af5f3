"""Going on, starting over, and never writing over what is not the job's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import JobStopped, OutputError
from engine.geometry import layout
from engine.job.attempts import run_task
from engine.job.executors import SerialExecutor
from engine.job.job import JobSummary, run_job
from engine.steps.task import Outcome, Task
from engine.store.claim import lock
from engine.store.folder import IDENTITY, JobFolder
from engine.store.local_store import LocalStore
from tests import networks
from tests.conftest import make_threshold_model
from tests.engine import jobs
from tests.engine.jobs import Shuffled, labels_of


@settings(max_examples=12)
@given(seed=st.integers(0, 2**16), stop_after=st.integers(0, 5))
def test_any_order_and_any_stop_end_in_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, seed: int, stop_after: int
) -> None:
    folder = tmp_path_factory.mktemp("job")
    model = make_threshold_model(folder / "model.onnx")
    stack = jobs.write_stack(folder / "stack.tif", jobs.blobs((11, 40, 50), seed=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "BLOCK_PIXELS", 2 * 40 * 50)
        whole = jobs.settings(stack, model, folder / "whole")
        run_job(whole, executor=SerialExecutor())
        parts = jobs.settings(stack, model, folder / "parts")
        first, second = Shuffled(seed, stop_after), Shuffled(seed + 1)
        with pytest.raises(JobStopped, match="disk is full"):
            run_job(parts, executor=first)
        assert run_job(parts, executor=second).exit_status == 0
    assert sorted(first.ran + second.ran) == list(range(6))  # nothing twice, nothing left out
    assert jobs.contents(folder / "parts") == jobs.contents(folder / "whole")


def test_a_finished_job_is_already_complete(
    tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    job = jobs.settings(stack, threshold_model, tmp_path / "out")
    first, second = run_job(job), run_job(job)
    assert not first.already_complete
    assert second.already_complete and second.exit_status == 0
    assert (second.frames_done, second.objects) == (first.frames_done, first.objects)


def test_a_finished_job_is_complete_in_a_folder_that_takes_no_writes_too(
    tmp_path: Path, stack: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was refused, since nothing can be written there; nothing has to be."""
    job = jobs.settings(stack, threshold_model, tmp_path / "out")
    done = run_job(job)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(LocalStore, "lease", _refused)
    monkeypatch.setattr(LocalStore, "put", _refused)
    monkeypatch.setattr(LocalStore, "delete", _refused)
    again = run_job(job)
    assert again.already_complete and again.exit_status == 0
    assert (again.frames_done, again.stacks) == (done.frames_done, done.stacks)
    with pytest.raises(OutputError, match=r"threshold was 0.5 and is 0.4 now"):
        run_job(job.model_copy(update={"threshold": 0.4}))
    for other in ({"fresh": True}, {"retry_failed": True}, {"output": tmp_path / "new"}):
        with pytest.raises(OutputError, match="cannot be written"):
            run_job(job.model_copy(update=other))
    (tmp_path / "out/frames.csv").unlink()
    with pytest.raises(OutputError, match=r"cannot be .* no longer complete: frames.csv is gone"):
        run_job(job)


def _refused(*_: object, **__: object) -> None:
    raise AssertionError("a write to a folder that takes none")


def test_another_job_in_the_same_folder_is_refused_by_name(
    tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    output = tmp_path / "out"
    run_job(jobs.settings(stack, threshold_model, output))
    before = jobs.contents(output)
    with pytest.raises(OutputError, match=r"threshold was 0.5 and is 0.4 now\).*--fresh"):
        run_job(jobs.settings(stack, threshold_model, output, threshold=0.4))
    with pytest.raises(OutputError, match="model"):
        other = make_threshold_model(tmp_path / "other.onnx", description="another")
        run_job(jobs.settings(stack, other, output))
    with pytest.raises(OutputError, match=r"frames"):
        run_job(jobs.settings(stack, threshold_model, output, frames=(0, 3)))
    with pytest.raises(OutputError, match="without --keep probability and is run with it"):
        run_job(jobs.settings(stack, threshold_model, output, keep="probability"))
    assert jobs.contents(output) == before
    jobs.write_stack(stack, jobs.blobs((14, 64, 96), seed=9))
    with pytest.raises(OutputError, match="the files of the input have changed"):
        run_job(jobs.settings(stack, threshold_model, output))


def test_fresh_starts_over_and_leaves_other_files_alone(
    tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    output, clean = tmp_path / "out", tmp_path / "clean"
    run_job(jobs.settings(stack, threshold_model, output, frames=(0, 3)))
    (output / "notes.txt").write_text("mine")
    run_job(jobs.settings(stack, threshold_model, output, fresh=True))
    run_job(jobs.settings(stack, threshold_model, clean))
    left = jobs.contents(output)
    assert left.pop("notes.txt") == b"mine"
    assert left == jobs.contents(clean)


def test_a_second_job_on_the_same_folder_waits_for_no_one(
    tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    with (
        lock(JobFolder(tmp_path / "out")),
        pytest.raises(OutputError, match="another job is writing here"),
    ):
        run_job(jobs.settings(stack, threshold_model, tmp_path / "out"))


def test_a_stop_finishes_what_is_in_flight_and_resumes(
    tmp_path: Path, stack: Path, threshold_model: Path, small_blocks: None
) -> None:
    import signal

    class Interrupts:
        asked = False

        def showing(self, total: int, done: int, objects: int) -> Any:
            from contextlib import nullcontext

            self.total, self.before = total, done
            return nullcontext()

        def begin(self, step: str) -> None:
            pass

        def advance(self, outcome: Outcome) -> None:
            if self.before == 0 and not self.asked:
                self.asked = True
                os.kill(os.getpid(), signal.SIGINT)

    job = jobs.settings(stack, threshold_model, tmp_path / "out", workers=1)
    first: JobSummary = run_job(job, Interrupts())
    assert first.exit_status == 130
    committed = JobFolder(job.output).numbers("records", "stack")
    assert 0 < len(committed) < 5
    again = Interrupts()
    assert run_job(job, again).exit_status == 0
    assert again.before == sum(3 if i < 4 else 2 for i in committed)
    whole = jobs.settings(stack, threshold_model, tmp_path / "whole")
    run_job(whole)
    assert jobs.contents(job.output) == jobs.contents(whole.output)


def test_staged_leftovers_are_swept_away(
    tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    output = tmp_path / "out"
    run_job(jobs.settings(stack, threshold_model, output))
    staging = output / ".stackseg/staging"
    staging.mkdir(exist_ok=True)
    (staging / "half").write_bytes(b"x")
    run_job(jobs.settings(stack, threshold_model, output))
    assert not staging.exists()


def test_an_input_is_never_written_over(tmp_path: Path, threshold_model: Path) -> None:
    data = jobs.blobs((3, 40, 50))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        array = zarr.create_array(
            tmp_path / name / "01.zarr", data=data, zarr_format=2, chunks=(1, 40, 50)
        )
        assert array.shape == data.shape
    before = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
    inputs = [tmp_path / name / "01.zarr" for name in ("a", "b")]
    for output in (tmp_path, tmp_path / "a" / "01.zarr"):
        with pytest.raises(OutputError, match="over the input"):
            run_job(jobs.settings(inputs, threshold_model, output, axes="TYX", fresh=True))
    stranger = tmp_path / "out/stack.zarr"
    stranger.mkdir(parents=True)
    stack = jobs.write_stack(tmp_path / "stack.tif", data)
    with pytest.raises(OutputError, match="is there already, and not by this job"):
        run_job(jobs.settings(stack, threshold_model, tmp_path / "out"))
    stack.unlink()
    after = {p: p.read_bytes() for p in before}
    assert after == before


def test_an_end_while_starting_over_leaves_a_job_to_be_done(
    tmp_path: Path, stack: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    job = jobs.settings(stack, threshold_model, output)
    run_job(job)
    whole = jobs.contents(output)
    removed, remove = 0, LocalStore.delete_all

    def dies(self: LocalStore, prefix: str) -> None:
        nonlocal removed
        removed += 1
        if removed == stop:
            raise KeyboardInterrupt
        remove(self, prefix)

    for stop in (1, 2, 3, 4, 5, 6, 7):  # noqa: B007 - read by `dies`
        removed = 0
        monkeypatch.setattr(LocalStore, "delete_all", dies)
        with pytest.raises(KeyboardInterrupt):
            run_job(jobs.settings(stack, threshold_model, output, fresh=True))
        monkeypatch.undo()
        again = run_job(job)
        assert not again.already_complete
        assert jobs.contents(output) == whole


def test_a_block_of_another_job_commits_nothing(
    tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    output = tmp_path / "out"
    run_job(jobs.settings(stack, threshold_model, output))
    late: list[Task] = []

    class Keeps:
        def run(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
            late.extend(tasks)
            raise OutputError("the disk is full")
            yield

    with pytest.raises(JobStopped):
        run_job(
            jobs.settings(stack, threshold_model, output, threshold=0.4, fresh=True),
            executor=Keeps(),
        )
    run_job(jobs.settings(stack, threshold_model, output, fresh=True))
    before = jobs.contents(output)
    with pytest.raises(JobStopped, match="another job has begun"):
        run_task(late[0])
    assert jobs.contents(output) == before


def test_an_input_that_changes_stops_the_job(
    tmp_path: Path, stack: Path, threshold_model: Path, small_blocks: None
) -> None:
    output = tmp_path / "out"

    class Changes(Shuffled):
        def run(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
            stack.unlink()
            yield from super().run(tasks)

    job = jobs.settings(stack, threshold_model, output)
    with pytest.raises(JobStopped, match=r"stack.tif.*same command again"):
        run_job(job, executor=Changes(0))
    assert not JobFolder(output).numbers("records", "stack")


def test_resuming_with_inexact_tiles_is_refused(
    tmp_path: Path, stack: Path, make_model: Any
) -> None:
    network = networks.unet((4, 8), positive=False)
    model = make_model(network, networks.spec(network))
    needed = 8
    run_job(jobs.settings(stack, model, tmp_path / "exact", halo=needed, tile=48))
    assert run_job(jobs.settings(stack, model, tmp_path / "exact")).already_complete
    run_job(jobs.settings(stack, model, tmp_path / "rough", halo=0, tile=32))
    with pytest.raises(OutputError, match="tile"):
        run_job(jobs.settings(stack, model, tmp_path / "rough", halo=0, tile=48))


def test_a_damaged_identity_is_one_sentence(
    tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    output = tmp_path / "out"
    run_job(jobs.settings(stack, threshold_model, output))
    (output / IDENTITY).write_text("{")
    for fresh in (False, True):
        with pytest.raises(OutputError, match="is damaged"):
            run_job(jobs.settings(stack, threshold_model, output, fresh=fresh))


def test_starting_over_removes_no_input_and_nothing_outside(
    tmp_path: Path, stack: Path, threshold_model: Path
) -> None:
    output = tmp_path / "out"
    run_job(jobs.settings(stack, threshold_model, output))
    labels = output / "stack.zarr/labels/threshold"
    with pytest.raises(OutputError, match="--fresh would remove"):
        run_job(jobs.settings(labels, threshold_model, output, fresh=True))
    assert labels_of(output, "stack").any()
    victim = tmp_path / "victim.zarr"
    victim.mkdir()
    path = output / IDENTITY
    path.write_text(path.read_text().replace('"stack": {', '"../victim": {'))
    with pytest.raises(OutputError, match="outside of"):
        run_job(jobs.settings(stack, threshold_model, output, fresh=True))
    assert victim.exists()


@pytest.mark.parametrize("name", ["job.json", "frames.csv", "stack.zarr"])
def test_files_of_others_are_left_alone(
    tmp_path: Path, stack: Path, threshold_model: Path, name: str
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / name).write_text('{"mine": 1}')
    with pytest.raises(OutputError, match="not by this job"):
        run_job(jobs.settings(stack, threshold_model, output))
    assert [p.name for p in output.iterdir()] == [name]
    assert (output / name).read_text() == '{"mine": 1}'


@pytest.mark.parametrize(
    ("damaged", "how"),
    [
        ("stack.zarr/labels/threshold/0/c/1/0/0", "removed"),
        (".stackseg/objects/stack/000001.parquet", "removed"),
        (".stackseg/records/stack/000001.json", "removed"),
        (".stackseg/records/stack/000001.json", "cut"),
    ],
)
def test_a_block_that_is_not_whole_is_done_again(
    tmp_path: Path, stack: Path, threshold_model: Path, small_blocks: None, damaged: str, how: str
) -> None:
    output = tmp_path / "out"
    job = jobs.settings(stack, threshold_model, output)
    run_job(job)
    whole = jobs.contents(output)
    (output / "job.json").write_text("{")  # damaged: the job is not at its end
    (output / ".stackseg/records/stack/000099.json").write_text("")  # of no block
    if how == "removed":
        (output / damaged).unlink()
    else:
        (output / damaged).write_bytes((output / damaged).read_bytes()[:50])
    executor = Shuffled(0)
    assert run_job(job, executor=executor).exit_status == 0
    assert executor.ran == [1]
    (output / ".stackseg/records/stack/000099.json").unlink()
    assert jobs.contents(output) == whole


@pytest.mark.parametrize("kind", ["folder", "zarr"])
def test_an_input_that_goes_away_sets_no_frame_aside(
    tmp_path: Path, threshold_model: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(layout, "BLOCK_PIXELS", 40 * 50)  # a block is a frame
    frames = jobs.blobs((4, 40, 50))
    place = tmp_path / ("stack" if kind == "folder" else "stack.zarr")
    if kind == "folder":
        place.mkdir()
        for t, frame in enumerate(frames):
            jobs.write_stack(place / f"{t}.tif", frame, axes="YX")
    else:
        zarr.create_array(place, data=frames, chunks=(1, 40, 50))

    class Loses(Shuffled):
        def run(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
            for n, task in enumerate(list(tasks)):
                if n == 1:
                    place.rename(tmp_path / "away")
                outcome = run_task(task)
                assert outcome is not None
                yield outcome

    job = jobs.settings(place, threshold_model, tmp_path / "out", axes="TYX")
    with pytest.raises(JobStopped, match="same command again"):
        run_job(job, executor=Loses(0))
    assert JobFolder(job.output).numbers("records", "stack") == [0]
    (tmp_path / "away").rename(place)
    assert run_job(job).exit_status == 0


def test_pixels_that_are_written_over_end_no_job(
    tmp_path: Path, stack: Path, threshold_model: Path, small_blocks: None
) -> None:
    other = jobs.write_stack(tmp_path / "other.tif", jobs.blobs((14, 64, 96), seed=5))

    class Overwrites(Shuffled):
        def run(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
            for n, outcome in enumerate(super().run(tasks)):
                if n == 2:
                    with stack.open("r+b") as file:
                        file.write(other.read_bytes())
                yield outcome

    job = jobs.settings(stack, threshold_model, tmp_path / "out")
    with pytest.raises(JobStopped, match="has changed since the job began"):
        run_job(job, executor=Overwrites(0))
    assert not (job.output / "job.json").exists()


@pytest.mark.parametrize("content", ["5", "[5]", "[[1]]", "[" * 100_000, '{"seconds": 5}', "{}"])
def test_odd_content_of_what_commits_nothing_is_no_matter(
    tmp_path: Path, stack: Path, threshold_model: Path, small_blocks: None, content: str
) -> None:
    job = jobs.settings(stack, threshold_model, tmp_path / "out")
    run_job(job)
    whole = jobs.contents(job.output)
    private = job.output / ".stackseg"
    (job.output / "job.json").write_text(content)
    (private / "records/stack/000001.json").write_text(content)
    (private / "timings/stack/segment/000002.json").write_text(content)
    (private / "timings/stack/segment/000002-copy.json").write_text(content)
    attempt = private / "attempts/stack/segment/000003.json"
    attempt.parent.mkdir(parents=True, exist_ok=True)
    attempt.write_text(content)
    (private / "records/stack/000003.json").unlink()
    assert run_job(job, executor=SerialExecutor()).exit_status == 0
    assert jobs.contents(job.output) == whole


@pytest.mark.parametrize(
    "lost",
    [
        "frames.csv",
        "stack.zarr/labels/threshold/0/zarr.json",
        "stack.zarr/labels/threshold/0/c/1/0/0",
        ".stackseg/records/stack/000002.json",
    ],
)
def test_what_a_complete_job_has_lost_is_made_again(
    tmp_path: Path, stack: Path, threshold_model: Path, small_blocks: None, lost: str
) -> None:
    job = jobs.settings(stack, threshold_model, tmp_path / "out")
    run_job(job)
    whole = jobs.contents(job.output)
    (job.output / lost).unlink()
    assert not run_job(job).already_complete
    assert jobs.contents(job.output) == whole
    assert run_job(job).already_complete
