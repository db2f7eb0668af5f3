"""A result as those who score, draw or convert it read it: which labels, and whose tables."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from engine.errors import JobStopped, OutputError, StackError, StacksegError, UsageError
from engine.geometry import layout as layout_module
from engine.job import relabel as relabel_module
from engine.job.relabel import relabel
from engine.results.convert.run import convert
from engine.results.pictures.render import RenderSettings, render
from engine.results.result import LabelClass, classes_of, open_result
from engine.results.score.compare import compare
from engine.results.score.sources import open_labels
from engine.store.folder import FAILURES, REPORT, JobFolder
from engine.store.reports import FailedFrame, Failures
from tests import results
from tests.engine import jobs

READERS: list[Callable[[Path], Any]] = [
    lambda where: Path(open_labels(where).path).name,
    lambda where: open_result(where)[0].model,
]


@pytest.fixture(scope="module")
def relabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job that kept its probabilities, and was labelled anew as "again"."""
    place = tmp_path_factory.mktemp("relabelled")
    stack = jobs.write_stack(place / "lapse.tif", jobs.blobs((3, 61, 83)))
    folder = results.make_result(place, [stack], keep="probability")
    assert relabel(folder, "again", threshold=0.6, min_area=3).exit_status == 0
    return folder


@pytest.fixture
def result(relabelled: Path, tmp_path: Path) -> Path:
    """A copy of `relabelled`, to be changed."""
    return Path(shutil.copytree(relabelled, tmp_path / "out"))


def refused(result: Path, output: Path, labels: str, words: str) -> None:
    """See that nobody takes a label image for a whole one."""
    image = result / "lapse.zarr/labels" / labels
    with pytest.raises(UsageError, match=words):
        open_labels(image)
    with pytest.raises(UsageError, match=words):
        open_labels(image / "0")
    for where, named in ((result, labels), (result / "lapse.zarr", labels), (image, None)):
        with pytest.raises(UsageError, match=words):
            convert(where, "tiff", output, labels=named)
    assert not output.exists()


def test_tables_are_those_of_the_job_that_made_the_labels(relabelled: Path, tmp_path: Path) -> None:
    added = relabelled / "relabelled/again"
    frames, objects = convert(relabelled, "csv", tmp_path, labels="again")
    assert frames.read_text() == (added / "frames.csv").read_text()
    assert frames.read_text() != (relabelled / "frames.csv").read_text()
    with objects.open(newline="") as file:
        areas = [int(row["area_px"]) for row in csv.DictReader(file)]
    labels = jobs.labels_of(relabelled, "lapse", "again")
    assert areas == [n for frame in labels for n in np.bincount(frame.ravel())[1:]]
    own, _ = convert(relabelled, "csv", tmp_path / "own")
    assert own.read_text() == (relabelled / "frames.csv").read_text()


def test_outlines_have_the_measures_of_their_own_labels(relabelled: Path, tmp_path: Path) -> None:
    (folder,) = convert(relabelled, "geojson", tmp_path, labels="again")
    table = pq.read_table(relabelled / "relabelled/again/objects.parquet").to_pylist()
    told = {(row["t"], row["label"]): row["mean_probability"] for row in table}
    found = {}
    for t in range(3):
        for feature in json.loads((folder / f"t{t:04d}.geojson").read_text())["features"]:
            properties = feature["properties"]
            found[t, int(properties["name"])] = properties["measurements"]["Mean probability"]
    assert found == told


def test_frames_that_were_set_aside_are_those_of_the_job_that_made_the_labels(
    result: Path,
) -> None:
    failure = FailedFrame(stack="lapse", t=1, z=0, reason="cannot be read")
    added = JobFolder(result / "relabelled/again")
    report = added.report()
    assert report is not None
    counts = report.counts.model_copy(update={"failed": 1})
    added.put_record(REPORT, report.model_copy(update={"counts": counts}))
    with pytest.raises(OutputError, match=r"failures.json: is gone or damaged, and frames were"):
        open_result(result, "again")
    added.put_record(FAILURES, Failures(frames=(failure,)))
    assert open_result(result, "again")[0].failed == {(1, 0)}
    assert not open_result(result)[0].failed


def test_labels_that_no_job_made_have_no_tables(result: Path, tmp_path: Path) -> None:
    labels = result / "lapse.zarr/labels"
    shutil.copytree(labels / "again", labels / "mine")
    meta = json.loads((labels / "zarr.json").read_text())
    meta["attributes"]["ome"]["labels"].append("mine")
    (labels / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(UsageError, match=r"labels/mine: has no tables, since no job"):
        convert(result, "csv", tmp_path / "o", labels="mine")
    assert not (tmp_path / "o").exists()
    assert len(open_labels(labels / "mine").numbers) == 3
    (folder,) = convert(result, "geojson", tmp_path / "o", labels="mine")
    feature = json.loads((folder / "t0000.geojson").read_text())["features"][0]
    assert feature["properties"]["measurements"].keys() == {"Area px^2"}


def test_a_relabelling_that_was_stopped_is_taken_by_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(layout_module, "BLOCK_PIXELS", 61 * 83)
    stack = jobs.write_stack(tmp_path / "lapse.tif", jobs.blobs((3, 61, 83)))
    result = results.make_result(tmp_path, [stack], keep="probability")

    def stopped(job: Any, folder: Any, progress: Any, opened: Any) -> Any:
        from engine.job.job import _claim_and_run

        return _claim_and_run(job, folder, jobs.Shuffled(1, stop_after=1), progress, opened)

    with monkeypatch.context() as patch:
        patch.setattr(relabel_module, "run_prepared", stopped)
        with pytest.raises(JobStopped):
            relabel(result, "again", threshold=0.6)
    words = r"relabelled/again: its relabelling is not complete; run the same command again"
    refused(result, tmp_path / "o", "again", words)
    relabel(result, "again", threshold=0.6)
    assert len(open_labels(result / "lapse.zarr/labels/again").numbers) == 3
    assert open_result(result, "again")[0].folder == result / "relabelled/again"


@pytest.mark.parametrize("damage", ["", '{"status": "complete"}', "{"])
def test_what_is_listed_has_to_be_complete_as_well(
    result: Path, tmp_path: Path, damage: str
) -> None:
    """As one that is begun anew with --fresh, or whose job.json is no longer whole."""
    (result / "relabelled/again/job.json").write_text(damage)
    refused(result, tmp_path / "o", "again", "its relabelling is not complete")
    assert open_labels(result).path.endswith("threshold"), "the job's own are whole"
    (result / "job.json").write_text(damage)
    refused(result, tmp_path / "o", "threshold", "its job is not complete")


@pytest.mark.parametrize("read", READERS)
def test_the_default_is_the_jobs_own_label_image_whatever_others_are_called(
    result: Path, tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    assert relabel(result, "threshold-objects", threshold=0.7).exit_status == 0
    moved = Path(shutil.copytree(result / "lapse.zarr", tmp_path / "moved.zarr"))
    for where in (result, result / "lapse.zarr", moved):
        assert read(where) == "threshold"
    for where in (result / "lapse.zarr", moved):
        assert read(where / "labels/threshold-objects") == "threshold-objects"
    meta = json.loads((moved / "zarr.json").read_text())
    del meta["attributes"]["stackseg"]  # as of a Zarr that something else made
    (moved / "zarr.json").write_text(json.dumps(meta))
    words = r"needs one label image, has again, threshold, .*; name \S*moved.zarr/labels/NAME"
    with pytest.raises(UsageError, match=words):
        read(moved)


def test_probabilities_lie_under_the_jobs_own_labels(relabelled: Path, tmp_path: Path) -> None:
    kept = zarr.open_array(relabelled / "lapse.zarr/probability/threshold/0")
    moved = Path(shutil.copytree(relabelled / "lapse.zarr", tmp_path / "moved.zarr"))
    for where in (relabelled, moved):
        found = open_result(where, "again")[0].probability
        assert found is not None
        np.testing.assert_array_equal(found.read(1, 0), kept[1])
    settings = RenderSettings(tmp_path / "p.png", style="probability", labels="again")
    render(relabelled, settings)
    assert settings.output.is_file()


def test_classes_are_those_that_are_named_coloured_and_of_eight_bits() -> None:
    """Viewers name and colour single objects as well."""
    properties = [{"label-value": 1, "name": "rim"}, {"label-value": 0, "name": "background"}]
    colors = [{"label-value": v, "rgba": [v, 9, 9, 255]} for v in range(3)]
    told: dict[str, Any] = {"image-label": {"properties": properties, "colors": colors}}
    found = (LabelClass(0, "background", (0, 9, 9)), LabelClass(1, "rim", (1, 9, 9)))
    assert classes_of(told, np.dtype("uint8")) == found
    assert not classes_of(told, np.dtype("uint32"))
    assert not classes_of({}, np.dtype("uint8"))
    for damaged in (5, "x", [5], {"properties": 5}, {"properties": [5], "colors": colors}):
        assert not classes_of({"image-label": damaged}, np.dtype("uint8"))
    colors[1]["rgba"] = [1]
    assert not classes_of(told, np.dtype("uint8"))
    colors[1]["rgba"] = [1, 9, 9, 255]
    del properties[1]
    assert not classes_of(told, np.dtype("uint8"))


def test_what_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="is no folder"):
        open_result(tmp_path / "no")
    with pytest.raises(StackError, match="holds no labels"):
        open_result(tmp_path)


def test_labels_whose_file_is_lost_are_no_background(result: Path, tmp_path: Path) -> None:
    """Zarr reads a missing shard as zeros: every reader would see empty frames."""
    shutil.rmtree(result / "lapse.zarr/labels/threshold/0/c")
    truth = result / "lapse.zarr/labels/again"
    for use in (
        lambda: compare(result, truth),
        lambda: convert(result, "ctc", tmp_path / "masks"),
        lambda: convert(result, "tiff", tmp_path / "tiffs"),
        lambda: render(result, RenderSettings(output=tmp_path / "out.png")),
    ):
        with pytest.raises(StacksegError, match=r"threshold/0/c/0/0/0: is gone.*verify"):
            use()
    assert not list((tmp_path / "masks").glob("*")) and not (tmp_path / "out.png").exists()


def test_tables_are_never_written_over_those_of_a_job(result: Path) -> None:
    before = (result / "frames.csv").read_bytes()
    with pytest.raises(UsageError, match="holds a job"):
        convert(result, "csv", result, overwrite=True)
    assert (result / "frames.csv").read_bytes() == before


def test_outlines_need_a_table_that_can_be_read(result: Path, tmp_path: Path) -> None:
    (result / "objects.parquet").write_bytes(b"")
    with pytest.raises(OutputError, match=r"objects.parquet: cannot be read"):
        convert(result, "geojson", tmp_path / "outlines")
    (result / "objects.parquet").unlink()
    with pytest.raises(OutputError, match=r"objects.parquet: cannot be read"):
        convert(result, "geojson", tmp_path / "outlines")
