"""A run is repeated with its validation part among what teaches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from engine.errors import ModelError, UsageError
from tests.train.data import write_pairs
from tests.train.runs import silent, small
from train.checkpoint import Checkpoint, load_checkpoint
from train.cli import train
from train.data.dataset import load_data
from train.fit import fit
from train.settings import TrainSettings
from train.summary import read_summary


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), [f"{i}.tif" for i in range(10)])


def settings_of(pairs: Path, **values: Any) -> TrainSettings:
    return small(pairs, **{"test_fraction": 0.2, "val_fraction": 0.3, "synthetic": 4} | values)


@pytest.fixture(scope="module")
def first(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("first")
    fit(settings_of(pairs), run, note=silent)
    return run


@pytest.fixture(scope="module")
def again(pairs: Path, first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("again")
    fit(settings_of(pairs, refit=str(first)), run, note=silent)
    return run


def parts(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "split.json").read_text())
    return found


def best(run: Path) -> Checkpoint:
    return load_checkpoint(run / "best.pt")


def test_the_validation_part_teaches_and_the_test_part_never(first: Path, again: Path) -> None:
    before, now = parts(first), parts(again)
    assert now["train"]["frames"] == before["train"]["frames"] + before["val"]["frames"]
    assert now["test"] == before["test"]
    assert now["synthetic"] == {"train": 5, "val": 1}
    assert not set(now["train"]["frames"]) & set(now["test"]["frames"])


def test_synthetic_frames_stay_the_last_ones(pairs: Path) -> None:
    data = load_data(settings_of(pairs)).with_val_taught()
    synthetic = [frame.name.startswith("synthetic") for frame in data.train]
    assert synthetic == data.is_synthetic
    assert sum(synthetic) == 5


def test_the_last_epoch_is_kept_with_what_the_first_run_chose(first: Path, again: Path) -> None:
    earlier, now = best(first), best(again)
    assert now.epoch == 2
    assert now.chosen == earlier.chosen
    assert {k: v for k, v in now.scores.items() if k.startswith("val_")} == {
        k: v for k, v in earlier.scores.items() if k.startswith("val_")
    }
    assert "test_f1" in now.scores
    assert read_summary(again).loss["val"] == read_summary(first).loss["val"]
    assert len(now.hashes["refit"]) == 64


def test_a_run_that_was_killed_goes_on(
    pairs: Path, first: Path, again: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(again, tmp_path / "run")
    fit(settings_of(pairs, refit=str(first)), run, note=silent, resume=True)
    for name, weights in best(again).weights.items():
        assert weights.equal(best(run).weights[name])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0.01}, "was trained with other settings .lr 0.002, now 0.01"),
        ({"val_fraction": 0.4}, "was trained with other settings .val_fraction 0.3, now 0.4"),
    ],
)
def test_other_settings_are_refused(
    pairs: Path, first: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        fit(settings_of(pairs, refit=str(first), **changes), tmp_path / "run", note=silent)


def test_other_data_are_refused(pairs: Path, first: Path, tmp_path: Path) -> None:
    other = shutil.copytree(pairs, tmp_path / pairs.name)
    next((other / "images").iterdir()).unlink()
    shutil.rmtree(other / "labels")
    write_pairs(other, [path.name for path in (other / "images").iterdir()])
    with pytest.raises(UsageError, match="was trained on other data"):
        fit(settings_of(other, refit=str(first)), tmp_path / "run", note=silent)


def test_another_teacher_is_refused(pairs: Path, first: Path, tmp_path: Path) -> None:
    fit(settings_of(pairs, teachers=(str(first),)), tmp_path / "one", note=silent)
    shutil.copytree(first, tmp_path / "two")
    shutil.copy(tmp_path / "one" / "best.pt", tmp_path / "two" / "best.pt")
    settings = settings_of(pairs, teachers=(str(tmp_path / "two"),), refit=str(tmp_path / "one"))
    with pytest.raises(UsageError, match="had another --teacher"):
        fit(settings, tmp_path / "run", note=silent)


def test_what_has_not_ended_or_was_repeated_already_is_refused(
    pairs: Path, first: Path, again: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="has learnt its validation part already"):
        fit(settings_of(pairs, refit=str(again)), tmp_path / "run", note=silent)
    unfinished = shutil.copytree(first, tmp_path / "unfinished")
    (unfinished / "summary.json").unlink()
    with pytest.raises(ModelError, match="no run has ended here"):
        fit(settings_of(pairs, refit=str(unfinished)), tmp_path / "run", note=silent)


def test_the_command_says_that_figures_flatter(pairs: Path, tmp_path: Path) -> None:
    options = ["--data", str(pairs), "--layout", "pairs", "--channels", "2,4", "--patch", "32"]
    options += ["--batch", "2", "--epochs", "1", "--steps-per-epoch", "2", "--workers", "0"]
    first, again = tmp_path / "first", tmp_path / "again"
    done = CliRunner().invoke(train, [*options, "--output", str(first)])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(train, [*options, "--refit", str(first), "--output", str(again)])
    assert done.exit_code == 0, done.output
    assert "validation frames teach, so figures of them flatter; the last epoch is kept" in (
        done.output
    )
    assert "last epoch 1, threshold" in done.output
