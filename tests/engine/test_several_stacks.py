"""Files of several images in a job: names, choices, sets of files; what is said, what recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from click.testing import CliRunner

from engine.cli import stackseg
from engine.errors import StackError
from engine.job.executors import SerialExecutor
from engine.job.job import run_job
from engine.job.prepare import plan_job
from engine.job.relabel import relabel
from engine.model.file import open_model
from tests.engine.jobs import contents, labels_of, settings, site
from tests.stacks.numbered import numbered
from tests.stacks.test_tiff_images import ome_planes
from tests.stacks.test_tiff_sets import positions, times

SIDES = (40, 50)


def squares(count: int, shape: tuple[int, int] = SIDES) -> np.ndarray:
    """A frame with so many squares, each an object."""
    frame = np.full(shape, 1000, np.uint16)
    for i in range(count):
        y, x = i // (shape[1] // 10) * 10 + 2, i % (shape[1] // 10) * 10 + 2
        frame[y : y + 6, x : x + 6] = 60_000
    return frame


def scenes(path: Path, counts: list[int]) -> Path:
    with tifffile.TiffWriter(path, ome=True) as writer:
        for i, count in enumerate(counts):
            metadata = {"axes": "YX", "Name": f"scene {i}"}
            writer.write(squares(count), photometric="minisblack", metadata=metadata)
    return path


def objects(output: Path) -> dict[str, list[int]]:
    """Objects of each frame, by stack."""
    rows = pq.read_table(output / "frames.parquet").to_pylist()
    return {
        name: [row["objects"] for row in rows if row["stack"] == name]
        for name in dict.fromkeys(row["stack"] for row in rows)
    }


def inputs_of(output: Path) -> list[dict[str, object]]:
    recorded: list[dict[str, object]] = json.loads((output / "job.json").read_text())["inputs"]
    return recorded


def test_every_scene_has_a_result(threshold_model: Path, tmp_path: Path) -> None:
    path = scenes(tmp_path / "a.ome.tif", [3, 7, 5])
    summary = run_job(settings(path, threshold_model, tmp_path / "out"), executor=SerialExecutor())
    assert summary.exit_status == 0
    assert objects(tmp_path / "out") == {"a/0": [3], "a/1": [7], "a/2": [5]}
    assert labels_of(tmp_path / "out", "a/1").max() == 7
    recorded = inputs_of(tmp_path / "out")
    assert [(i["series"], i["series_name"]) for i in recorded] == [
        ("0", "scene 0"), ("1", "scene 1"), ("2", "scene 2"),
    ]  # fmt: skip
    again = run_job(settings(path, threshold_model, tmp_path / "out"), executor=SerialExecutor())
    assert again.already_complete


def test_any_executor_and_process_opens_the_same_scene(
    threshold_model: Path, tmp_path: Path
) -> None:
    path = scenes(tmp_path / "a.ome.tif", [3, 7, 5, 1])
    run_job(settings(path, threshold_model, tmp_path / "one"), executor=SerialExecutor())
    run_job(settings(path, threshold_model, tmp_path / "two", workers=3))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize(("choice", "expected"), [("1", 7), ("scene 2", 5)])
def test_one_scene_chosen(
    threshold_model: Path, tmp_path: Path, choice: str, expected: int
) -> None:
    path = scenes(tmp_path / "a.ome.tif", [3, 7, 5])
    job = settings(path, threshold_model, tmp_path / "out", series=choice)
    run_job(job, executor=SerialExecutor())
    assert objects(tmp_path / "out") == {"a": [expected]}
    (said,) = inputs_of(tmp_path / "out")[0]["unused"]  # type: ignore[misc]
    assert "2 images of the file are not read" in str(said)


def test_another_scene_is_another_job(threshold_model: Path, tmp_path: Path) -> None:
    path = scenes(tmp_path / "a.ome.tif", [3, 7])
    run_job(
        settings(path, threshold_model, tmp_path / "out", series="0"), executor=SerialExecutor()
    )
    with pytest.raises(Exception, match="series"):
        run_job(
            settings(path, threshold_model, tmp_path / "out", series="1"), executor=SerialExecutor()
        )


def test_a_scene_is_relabelled_and_drawn(threshold_model: Path, tmp_path: Path) -> None:
    """Later commands find the image that a result was made from."""
    path = scenes(tmp_path / "a.ome.tif", [3, 7])
    run_job(
        settings(path, threshold_model, tmp_path / "out", keep="probability"),
        executor=SerialExecutor(),
    )
    assert relabel(tmp_path / "out", "larger", min_area=10).objects == 10
    arguments = [
        "render",
        str(tmp_path / "out"),
        "--stack",
        "a/1",
        "--output",
        str(tmp_path / "m.mp4"),
    ]
    result = CliRunner().invoke(stackseg, arguments)
    assert result.exit_code == 0, result.output


def test_what_is_not_used_is_said(threshold_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for count in (1, 2, 3):
            writer.write(squares(count), photometric="minisblack")
        writer.write(squares(1, (20, 20)), photometric="minisblack")
    arguments = [str(path), "--model", str(threshold_model)]
    sentence = "a.tif: 1 image of the file is not read: 1: 20 x 20 uint16; --series"
    for command in (
        ["plan", *arguments],
        ["segment", *arguments, "--output", str(tmp_path / "o"), "--dry-run"],
    ):
        result = CliRunner().invoke(stackseg, command)
        assert result.exit_code == 0 and sentence in result.stderr
    job, model = settings(path, threshold_model, tmp_path / "o"), open_model(str(threshold_model))
    plan = plan_job(job, model, site())
    assert any(sentence in warning for warning in plan.warnings)
    shown = CliRunner().invoke(stackseg, ["inspect", str(path)])
    assert "is not read" in shown.output


def test_many_inputs_do_not_drown_the_terminal(threshold_model: Path, tmp_path: Path) -> None:
    for i in range(30):
        tifffile.imwrite(
            tmp_path / f"{i}.tif", ~squares(2), photometric="miniswhite", metadata=None
        )
    job = settings(sorted(tmp_path.glob("*.tif")), threshold_model, tmp_path / "out")
    plan = plan_job(job, open_model(str(threshold_model)), site())
    assert len(plan.warnings) == 21 and len(plan.notes) == 30
    assert plan.warnings[-1] == "and 10 more such notes; job.json has them all"


def test_the_files_of_a_set_are_read_once(threshold_model: Path, tmp_path: Path) -> None:
    """As a shell's *.tif gives them."""
    files = times(tmp_path, 4)
    job = settings(files, threshold_model, tmp_path / "out")
    plan = plan_job(job, open_model(str(threshold_model)), site())
    assert [stack.name for stack in plan.stacks] == ["t0"]
    assert plan.n_frames == 4 and len(plan.warnings) == 3
    assert f"{files[1]}: is one of the files of {files[0]}, and read with it" in plan.warnings


def test_a_set_that_is_refused_is_read_with_none_of_its_files(
    threshold_model: Path, tmp_path: Path
) -> None:
    files = times(tmp_path, 3)
    tifffile.imwrite(tmp_path / "good.tif", np.stack([squares(1)] * 2), metadata={"axes": "CYX"})
    job = settings([*files, tmp_path / "good.tif"], threshold_model, tmp_path / "out", channel="1")
    plan = plan_job(job, open_model(str(threshold_model)), site())
    assert [path for path, _ in plan.refused] == list(map(str, files))
    assert plan.notes == ()


def test_positions_that_are_given_are_not_missed(threshold_model: Path, tmp_path: Path) -> None:
    files = positions(tmp_path, 3, 2)
    model = open_model(str(threshold_model))
    whole = settings(files, threshold_model, tmp_path / "out")
    assert plan_job(whole, model, site()).warnings == ()
    some = settings(files[:2], threshold_model, tmp_path / "out")
    warnings = plan_job(some, model, site()).warnings
    assert len(warnings) == 2 and all("x_Pos2.ome.tif; give these as well" in w for w in warnings)


def test_frames_that_are_not_there_are_refused_unless_left_out(
    threshold_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.ome.tif"
    ome_planes(path, numbered(*range(3)), 5)
    model = open_model(str(threshold_model))

    def plan(**changes: object) -> int:
        job = settings(path, threshold_model, tmp_path / "out", **changes)
        return plan_job(job, model, site()).n_frames

    for frames in ((None, None), (2, 4), (4, None)):
        with pytest.raises(StackError, match="count 5 planes, but it has only 3"):
            plan(frames=frames)
    assert plan(frames=(0, 3)) == 3
    job = settings(path, threshold_model, tmp_path / "out", frames=(0, 3))
    run_job(job, executor=SerialExecutor())
    (note,) = json.loads((tmp_path / "out/job.json").read_bytes())["notes"]
    assert note == f"{path}: its metadata count planes that are missing; --frames leaves them out"
    assert plan(series="pages") == 3


def test_where_0_is_white_is_on_record(threshold_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ~squares(5), photometric="miniswhite", metadata=None)
    run_job(settings(path, threshold_model, tmp_path / "out"), executor=SerialExecutor())
    assert objects(tmp_path / "out") == {"a": [5]}
    assert inputs_of(tmp_path / "out")[0]["min_is_white"] is True


def test_other_inputs_have_one_image(threshold_model: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray((squares(2) >> 8).astype(np.uint8)).save(tmp_path / "a.png")
    model = open_model(str(threshold_model))
    for choice in ("0", "all"):
        job = settings(tmp_path / "a.png", threshold_model, tmp_path / "out", series=choice)
        assert plan_job(job, model, site()).n_frames == 1
    job = settings(tmp_path / "a.png", threshold_model, tmp_path / "out", series="1")
    with pytest.raises(StackError, match="has no image 1; it has one, number 0"):
        plan_job(job, model, site())
