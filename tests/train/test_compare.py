"""`stackseg compare`: what the table says is what the runs left."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import imagecodecs
import pytest
from click.testing import CliRunner, Result

from engine.errors import ModelError, OutputError, StacksegError, UsageError
from tests.train.data import write_pairs
from tests.train.heart import heart_settings, write_hearts
from tests.train.runs import silent, small
from train.checkpoint import load_checkpoint, save_checkpoint
from train.cli_compare import compare
from train.compare import compare_runs, table
from train.fit import fit
from train.networks import n_weights
from train.summary import read_summary

FRAME = ["--frame", "40x56"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One with a test part, one with the validation part alone."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_pairs(folder / "data", [f"{i}.tif" for i in range(10)])
    fit(small(data, epochs=1, test_fraction=0.2), folder / "plain", note=silent)
    fit(small(data, epochs=2, shuffle=2), folder / "shuffled", note=silent)
    return folder / "plain", folder / "shuffled"


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(compare, [str(a) for a in arguments])


def test_a_row_is_what_a_run_left(runs: tuple[Path, Path]) -> None:
    for row, run, part in zip(compare_runs(runs, (40, 56)), runs, ("test", "val"), strict=True):
        best, summary = load_checkpoint(run / "best.pt"), read_summary(run)
        assert (row.run, row.part) == (run.name, part)
        assert row.weights == n_weights(best.build())
        assert (row.epochs, row.best_epoch) == (summary.epochs, best.epoch)
        assert row.training_seconds == summary.seconds
        assert (row.iou, row.f1) == (best.scores[f"{part}_iou"], best.scores[f"{part}_f1"])
        assert row.seg == best.scores.get(f"{part}_seg")
        assert row.loss == summary.loss["val"]
        assert row.ms_per_frame > 0


def test_table_csv_and_picture(runs: tuple[Path, Path], tmp_path: Path) -> None:
    done = invoke(*runs, "--output", tmp_path / "table", *FRAME)
    assert done.exit_code == 0, done.output
    header, plain, shuffled = done.stdout.splitlines()
    assert header.split()[:3] == ["run", "network", "weights"]
    assert plain.split()[:3] == ["plain", "unet", "2-4"]
    assert "unet 2-4 shuffle 2" in shuffled
    assert "40x56 px by PyTorch in fp32, median of 5, on 1 thread of" in done.stderr
    assert "scores of val flatter" in done.stderr
    with (tmp_path / "table" / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["plain", "shuffled"]
    iou = load_checkpoint(runs[1] / "best.pt").scores["val_iou"]
    assert float(rows[1]["iou"]) == iou
    assert imagecodecs.imread(tmp_path / "table" / "compare.png").ndim == 3
    again = invoke(*runs, "--output", tmp_path / "table", *FRAME)
    assert isinstance(again.exception, OutputError)
    assert invoke(*runs, "--output", tmp_path / "table", "--overwrite", *FRAME).exit_code == 0


def test_a_score_that_a_run_lacks_is_a_dash(runs: tuple[Path, Path], tmp_path: Path) -> None:
    best = load_checkpoint(runs[1] / "best.pt")
    scores = {"val_iou": 0.5, "val_seg": 0.25}
    save_checkpoint(tmp_path / "best.pt", type(best)(**(vars(best) | {"scores": scores})))
    (tmp_path / "summary.json").write_bytes((runs[1] / "summary.json").read_bytes())
    done = invoke(tmp_path, "--output", tmp_path / "table", *FRAME)
    cells = done.stdout.splitlines()[1].split()
    assert "0.2500" in cells and cells.count("-") == 2  # both F1
    with (tmp_path / "table" / "compare.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["seg"], row["f1"], row["f1_50"]) == ("0.25", "", "")


def test_what_cannot_be_compared_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "best.pt").write_bytes((runs[0] / "best.pt").read_bytes())
    for arguments, kind, words in (
        ([tmp_path / "nowhere"], ModelError, "there is no such folder"),
        ([unfinished], ModelError, "has no summary.json"),
        ([runs[0], runs[0]], UsageError, "given more than once"),
        ([unfinished / "best.pt"], ModelError, "is no folder; give the folder"),
        ([runs[0], "--frame", "1000000x1000000"], UsageError, "not enough memory for a frame"),
    ):
        error = invoke(*FRAME, *arguments).exception
        assert isinstance(error, kind) and isinstance(error, StacksegError)
        assert words in str(error) and "\n" not in str(error)
    assert invoke(runs[0], "--frame", "40").exit_code == 2


@pytest.mark.parametrize(
    "damage", [{"seconds": "abc"}, {"loss": {}}, {"loss": 5}, {"weights": None}, {"extra": 1}]
)
def test_a_summary_that_is_none_is_refused(
    runs: tuple[Path, Path], tmp_path: Path, damage: dict[str, Any]
) -> None:
    values = json.loads((runs[0] / "summary.json").read_text())
    (tmp_path / "summary.json").write_text(json.dumps(values | damage))
    with pytest.raises(ModelError, match=r"summary\.json: is not a summary of stackseg train"):
        read_summary(tmp_path)


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes")
    how = heart_settings(write_hearts(folder / "data"), epochs=1)
    fit(how, folder / "hearts", note=silent)
    return folder / "hearts"


def test_runs_of_classes_have_dice_instead(of_classes: Path, tmp_path: Path) -> None:
    done = invoke(of_classes, "--output", tmp_path, *FRAME)
    assert done.exit_code == 0, done.output
    header = done.stdout.splitlines()[0]
    assert "Dice" in header and "Dice left ventricle" in header
    assert "SEG" not in header and "F1" not in header
    scores = load_checkpoint(of_classes / "best.pt").scores
    assert f"{scores['val_mean_dice']:.4f}" in done.stdout
    with (tmp_path / "compare.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    for name in ("myocardium", "left ventricle", "right ventricle"):
        assert float(row[f"dice_{name}"]) == scores[f"val_dice_{name}"]
    assert row["seg"] == ""


def test_objects_and_classes_share_a_table(runs: tuple[Path, Path], of_classes: Path) -> None:
    header, (objects, classes) = table(compare_runs((runs[0], of_classes), (40, 56)))
    at = {name: header.index(name) for name in ("SEG", "Dice", "Dice myocardium")}
    assert [objects[i] == "-" for i in at.values()] == [False, True, True]
    assert [classes[i] == "-" for i in at.values()] == [True, False, False]
