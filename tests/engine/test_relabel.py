"""Relabelling: the labels of a fresh run, but for the 8 bits in which probabilities are kept."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from click.testing import CliRunner

from engine.cli import stackseg
from engine.errors import FrameError, JobStopped, OutputError, StackError, UsageError
from engine.geometry import layout as layout_module
from engine.inference.probability import from_8_bit
from engine.job import relabel as relabel_module
from engine.job.job import run_job
from engine.job.relabel import relabel
from engine.job.run import Run
from engine.labels.instances import label_instances
from engine.labels.postprocessing import Postprocessing
from engine.results.score.compare import compare
from engine.results.verify.run import verify_job
from engine.steps.network import Network
from engine.store import claim
from engine.store.claim import listing, lock, reading
from engine.store.folder import JobFolder
from engine.store.ome_zarr import label_list
from tests.engine import jobs


def segment(tmp_path: Path, model: Path, name: str = "out", **options: Any) -> Path:
    stack = tmp_path / "stack.tif"
    if not stack.exists():
        jobs.write_stack(stack, jobs.blobs((5, 300, 280)))
    settings = jobs.settings(stack, model, tmp_path / name, **options)
    assert run_job(settings).exit_status == 0
    return tmp_path / name


@pytest.fixture
def kept(tmp_path: Path, threshold_model: Path) -> Path:
    return segment(tmp_path, threshold_model, keep="probability")


@pytest.mark.parametrize("image", [False, True])
def test_another_threshold_gives_the_labels_of_a_fresh_run(
    threshold_model: Path, tmp_path: Path, image: bool
) -> None:
    """Equal but where a probability lies within 1/510 of the threshold; here that is counted."""
    kept = segment(tmp_path, threshold_model, keep="probability", with_image=image)
    fresh = segment(tmp_path, threshold_model, "fresh", threshold=0.6, min_area=0)
    if image:
        (tmp_path / "stack.tif").unlink()  # all that is needed was kept
    assert relabel(kept, "higher", threshold=0.6, min_area=0).exit_status == 0
    found = jobs.labels_of(kept, "stack", "higher")
    wanted = jobs.labels_of(fresh, "stack")
    probability = from_8_bit(zarr.open_array(kept / "stack.zarr/probability/threshold/0")[...])
    postprocessing = Postprocessing(threshold=0.6, min_area=0)
    for frame, mask in zip(found, probability >= np.float32(0.6), strict=True):
        assert np.array_equal(frame, label_instances(mask, postprocessing))
    near = np.abs(probability - 0.6) <= 1 / 510 + 1e-6
    assert np.array_equal(found[~near] > 0, wanted[~near] > 0)
    assert verify_job(kept).exit_status == 0
    assert verify_job(kept / "relabelled/higher").exit_status == 0


def test_a_threshold_that_8_bits_hold_apart_gives_every_bit(
    tmp_path: Path, threshold_model: Path
) -> None:
    """Where no probability lies within the rounding, all is equal: labels and tables."""
    stack = tmp_path / "stack.tif"
    steps = np.random.default_rng(0).integers(0, 21, (3, 64, 64)).astype(np.uint16) * 3000
    jobs.write_stack(stack, np.repeat(np.repeat(steps, 4, axis=1), 4, axis=2))
    kept = segment(tmp_path, threshold_model, keep="probability")
    postprocessing = {
        "threshold": 0.62,
        "instances": "watershed",
        "min_area": 30,
        "fill_holes": True,
    }
    fresh = segment(tmp_path, threshold_model, "fresh", **postprocessing)
    relabel(kept, "again", **postprocessing)
    assert np.array_equal(jobs.labels_of(kept, "stack", "again"), jobs.labels_of(fresh, "stack"))
    ours = pq.read_table(kept / "relabelled/again/objects.parquet")
    theirs = pq.read_table(fresh / "objects.parquet")
    for name in theirs.column_names:
        if name == "mean_probability":  # of rounded probabilities
            assert np.abs(ours[name].to_numpy() - theirs[name].to_numpy()).max() < 1 / 510
        else:
            assert ours[name].equals(theirs[name]), name


def test_cut_frames_are_labelled_anew_as_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, threshold_model: Path
) -> None:
    monkeypatch.setattr(layout_module, "BLOCK_PIXELS", 150 * 150)
    monkeypatch.setattr(layout_module, "REGION", 128)
    kept = segment(tmp_path, threshold_model, keep="probability")
    relabel(kept, "same")
    assert np.array_equal(jobs.labels_of(kept, "stack", "same"), jobs.labels_of(kept, "stack"))
    relabel(kept, "other", threshold=0.7, clear_border=True)
    probability = from_8_bit(zarr.open_array(kept / "stack.zarr/probability/threshold/0")[...])
    for frame, one in zip(jobs.labels_of(kept, "stack", "other"), probability, strict=True):
        postprocessing = Postprocessing(threshold=0.7, clear_border=True)
        assert np.array_equal(frame, label_instances(one >= np.float32(0.7), postprocessing))
    with pytest.raises(StackError, match="cut into regions"):
        relabel(kept, "shed", instances="watershed")
    assert not (kept / "stack.zarr/labels/shed").exists()


def test_stopped_and_gone_on_with_it_ends_in_the_same_bytes(
    threshold_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(layout_module, "BLOCK_PIXELS", 300 * 280)
    kept = segment(tmp_path, threshold_model, keep="probability")
    other = Path(shutil.copytree(kept, tmp_path / "other"))
    relabel(kept, "again", threshold=0.55)
    run = relabel_module.run_prepared

    def stopped(job: Any, folder: Any, progress: Any, stack: Any) -> Any:
        from engine.job.job import _claim_and_run

        return _claim_and_run(job, folder, jobs.Shuffled(1, stop_after=1), progress, stack)

    monkeypatch.setattr(relabel_module, "run_prepared", stopped)
    with pytest.raises(JobStopped, match="disk is full"):
        relabel(other, "again", threshold=0.55)
    names = json.loads((other / "stack.zarr/labels/zarr.json").read_bytes())
    assert names["attributes"]["ome"]["labels"] == ["threshold"]  # what is not whole is not named
    monkeypatch.setattr(relabel_module, "run_prepared", run)
    assert relabel(other, "again", threshold=0.55).exit_status == 0
    ours, theirs = jobs.contents(other), jobs.contents(kept)
    assert ours == theirs
    names = json.loads((other / "stack.zarr/labels/zarr.json").read_bytes())
    assert names["attributes"]["ome"]["labels"] == ["threshold", "again"]
    assert relabel(other, "again", threshold=0.55).already_complete
    with pytest.raises(OutputError, match=r"stack: threshold was 0\.55 and is 0\.5 now"):
        relabel(other, "again", threshold=0.5)
    assert relabel(other, "again", threshold=0.5, fresh=True).exit_status == 0
    assert verify_job(other / "relabelled/again").exit_status == 0


def test_frames_mended_since_are_not_left_out(
    threshold_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A frame may fail for a reason of the moment: the input, and its identity, stay the same."""
    predict = Network.predict

    def fails(self: Network, t: int, z: int) -> Any:
        if t == 2:
            raise FrameError("cannot be read just now")
        return predict(self, t, z)

    stack = jobs.write_stack(tmp_path / "stack.tif", jobs.blobs((5, 30, 32)))
    settings = jobs.settings(stack, threshold_model, tmp_path / "out", keep="probability")
    with monkeypatch.context() as patch:
        patch.setattr(Network, "predict", fails)
        assert run_job(settings).exit_status == 1
    assert relabel(tmp_path / "out", "again").frames_failed == 1
    assert run_job(settings.model_copy(update={"retry_failed": True})).exit_status == 0
    with pytest.raises(OutputError, match=r"the kept probabilities have changed.*--fresh"):
        relabel(tmp_path / "out", "again")
    assert relabel(tmp_path / "out", "again", fresh=True).exit_status == 0
    ours, first = (jobs.labels_of(tmp_path / "out", "stack", n) for n in ("again", "threshold"))
    assert np.array_equal(ours, first) and first[2].any()


def test_what_cannot_be_labelled_anew_is_told(
    kept: Path, tmp_path: Path, threshold_model: Path
) -> None:
    plain = segment(tmp_path, threshold_model, "plain")
    with pytest.raises(OutputError, match="--keep probability"):
        relabel(plain, "again")
    with pytest.raises(OutputError, match="is no folder"):
        relabel(tmp_path / "nothing", "again")
    with pytest.raises(OutputError, match="give another --name"):
        relabel(kept, "threshold")
    with pytest.raises(UsageError, match="letters"):
        relabel(kept, "../out")
    shard = next(p for p in (kept / "stack.zarr/probability").rglob("c/*/*/*") if p.is_file())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(JobStopped, match="is not what was recorded; remove it"):
        relabel(kept, "again")
    shard.unlink()
    segment(tmp_path, threshold_model, kept.name, keep="probability")  # as one is told to do
    assert relabel(kept, "again").exit_status == 0
    (tmp_path / "stack.tif").unlink()
    with pytest.raises(OutputError, match="--with-image"):
        relabel(kept, "once-more")


def test_a_frame_that_was_set_aside_stays_so_without_its_input(
    tmp_path: Path, threshold_model: Path
) -> None:
    """All that is needed was kept: that the input is gone says nothing of the frame."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for t, frame in enumerate(jobs.blobs((3, 300, 280))):
        jobs.write_stack(folder / f"t{t}.tif", frame, axes="YX")
    with (folder / "t1.tif").open("r+b") as file:
        file.truncate(2000)
    settings = jobs.settings(
        folder, threshold_model, tmp_path / "out", keep="probability", with_image=True
    )
    assert run_job(settings).frames_failed == 1
    shutil.rmtree(folder)
    done = relabel(tmp_path / "out", "again", threshold=0.6)
    assert (done.exit_status, done.frames_done, done.frames_failed) == (1, 3, 1)
    assert not jobs.labels_of(tmp_path / "out", "frames", "again")[1].any()


def test_scores_are_of_the_jobs_own_labels_unless_others_are_named(kept: Path) -> None:
    relabel(kept, "again", threshold=0.6)
    own, again = (kept / f"stack.zarr/labels/{name}" for name in ("threshold", "again"))
    for labels in (kept, kept / "stack.zarr", own):
        assert compare(labels, own).pooled.iou == 1  # type: ignore[union-attr]
    assert compare(again, own).pooled.iou < 1  # type: ignore[union-attr]


def test_rules_of_the_job_that_other_methods_know_nothing_of_are_left_away(
    tmp_path: Path, threshold_model: Path
) -> None:
    postprocessing = {
        "instances": "watershed",
        "min_distance": 5,
        "max_area": 400,
        "fill_holes": True,
    }
    kept = segment(tmp_path, threshold_model, keep="probability", **postprocessing)
    fresh = segment(tmp_path, threshold_model, "fresh", max_area=400, fill_holes=True)
    relabel(kept, "joined", instances="components")
    assert np.array_equal(jobs.labels_of(kept, "stack", "joined"), jobs.labels_of(fresh, "stack"))
    relabel(kept, "classes", instances="none")
    assert set(np.unique(jobs.labels_of(kept, "stack", "classes"))) == {0, 1}
    relabel(kept, "large", max_area="none")
    assert jobs.labels_of(kept, "stack", "large").max() > jobs.labels_of(kept, "stack").max()
    with pytest.raises(UsageError, match="min-distance: is for"):  # when it is asked for now
        relabel(kept, "not", instances="components", min_distance=3)


def test_planes_that_are_connected_keep_their_method(tmp_path: Path, threshold_model: Path) -> None:
    volume = jobs.write_stack(tmp_path / "volume.tif", jobs.blobs((3, 60, 64)), axes="ZYX")
    settings = jobs.settings(
        volume, threshold_model, tmp_path / "out", keep="probability", connect="z"
    )
    assert run_job(settings).exit_status == 0
    for method in ("watershed", "none"):
        with pytest.raises(OutputError, match="without --connect z"):
            relabel(tmp_path / "out", "again", instances=method)


def names_in(result: Path) -> list[str]:
    group = json.loads((result / "stack.zarr/labels/zarr.json").read_bytes())
    return list(group["attributes"]["ome"]["labels"])


def test_the_list_of_label_images_is_made_again_whole(
    kept: Path, tmp_path: Path, threshold_model: Path
) -> None:
    relabel(kept, "again", threshold=0.6)
    (kept / "stack.zarr/labels/zarr.json").unlink()
    assert verify_job(kept).exit_status == 1
    segment(tmp_path, threshold_model, kept.name, keep="probability")
    assert names_in(kept) == ["threshold", "again"]
    assert verify_job(kept).exit_status == 0


def test_verify_misses_a_label_image_that_is_not_listed(kept: Path) -> None:
    relabel(kept, "again", threshold=0.6)
    path = kept / "stack.zarr/labels/zarr.json"
    path.write_bytes(label_list(["threshold"]))
    (problem,) = verify_job(kept).problems.to_list()
    assert problem["path"] == "stack.zarr/labels/zarr.json"
    assert "do not name the labels again" in problem["what"]
    relabel(kept, "again", threshold=0.6)
    assert names_in(kept) == ["threshold", "again"]


def test_what_is_begun_anew_is_not_listed_until_it_is_whole(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relabel(kept, "again", threshold=0.6)

    def stops(*_: Any, **__: Any) -> Any:
        assert names_in(kept) == ["threshold"]
        raise JobStopped("for the test")

    monkeypatch.setattr(Run, "carry_out", stops)
    with pytest.raises(JobStopped):
        relabel(kept, "again", threshold=0.7, fresh=True)
    assert names_in(kept) == ["threshold"]


def test_relabellings_at_once_are_all_listed(kept: Path) -> None:
    """Each writes the list from what is complete, one after the other."""
    with ThreadPoolExecutor(4) as pool:
        names = [f"n{i}" for i in range(4)]
        command = [sys.executable, "-m", "engine", "relabel", str(kept), "--quiet", "--name"]
        done = list(pool.map(lambda name: subprocess.run([*command, name]).returncode, names))
    assert done == [0] * 4
    assert names_in(kept)[0] == "threshold" and sorted(names_in(kept)[1:]) == names


def test_the_list_is_written_by_one_at_a_time(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "LOOKS", 2)
    with listing(JobFolder(kept)), pytest.raises(OutputError, match="is held by another job"):
        relabel(kept, "again")
    assert names_in(kept) == ["threshold"]
    assert relabel(kept, "again").exit_status == 0 and names_in(kept) == ["threshold", "again"]


def test_label_images_of_others_stay_listed(kept: Path) -> None:
    """Viewers add such by hand: corrections, annotations."""
    path = kept / "stack.zarr/labels/zarr.json"
    path.write_bytes(label_list(["threshold", "by-hand"]))
    relabel(kept, "again", threshold=0.6)
    assert names_in(kept) == ["threshold", "again", "by-hand"]
    assert verify_job(kept).exit_status == 0


def test_a_damaged_relabelling_is_no_damage_of_the_result(kept: Path) -> None:
    relabel(kept, "again", threshold=0.6)
    (kept / "relabelled/again/.stackseg/identity.json").write_text("{")
    assert verify_job(kept).exit_status == 0
    assert verify_job(kept / "relabelled/again").exit_status == 1


def test_neither_the_job_nor_its_relabelling_runs_over_the_other(
    kept: Path, threshold_model: Path, tmp_path: Path
) -> None:
    settings = jobs.settings(tmp_path / "stack.tif", threshold_model, kept, keep="probability")
    with lock(JobFolder(kept)), pytest.raises(OutputError, match="its job is running"):
        relabel(kept, "again")
    with reading(JobFolder(kept)):
        assert relabel(kept, "again").exit_status == 0
        with pytest.raises(OutputError, match="another job is writing here"):
            run_job(settings.model_copy(update={"fresh": True}))
    assert names_in(kept) == ["threshold", "again"]


def test_paths_of_problems_are_told_from_the_result(kept: Path) -> None:
    relabel(kept, "again", threshold=0.6)
    (kept / "relabelled/again/frames.csv").unlink()
    shard = next(p for p in (kept / "stack.zarr/labels/again/0/c").rglob("*") if p.is_file())
    shard.unlink()
    told = CliRunner().invoke(stackseg, ["verify", str(kept), "--json"], standalone_mode=False)
    paths = {problem["path"] for problem in json.loads(told.stdout)}
    assert paths == {"relabelled/again/frames.csv", str(shard.relative_to(kept))}


def test_on_the_command_line(kept: Path) -> None:
    told = CliRunner().invoke(
        stackseg, ["relabel", str(kept), "--threshold", "0.6", "--instances", "watershed"]
    )
    assert told.exit_code == 0, told.output
    assert str(kept / "stack.zarr/labels/relabelled") in told.output
    rows = pq.read_table(kept / "relabelled/relabelled/frames.parquet").num_rows
    assert rows == 5
