"""`stackseg train --overfit-one`: one patch by heart, or a non-zero exit."""

from __future__ import annotations

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from engine.errors import UsageError
from tests.train.data import write_pairs
from train.cli import train
from train.overfit import NotLearnt


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), [f"{i}.tif" for i in range(5)])


def test_the_default_network_learns_one_patch_by_heart(pairs: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(pairs), "--layout", "pairs", "--overfit-one", "--device", "cpu"]
    done = CliRunner().invoke(
        train, [*arguments, "--output", str(tmp_path / "one")], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert {p.name for p in (tmp_path / "one").iterdir()} == {"overfit.png", "overfit.json"}
    history = json.loads((tmp_path / "one" / "overfit.json").read_text())["history"]
    assert [row["step"] for row in history] == list(range(10, 101, 10))
    assert history[-1]["iou"] > 0.98
    assert f"IoU {history[-1]['iou']:.4f}" in done.stderr
    picture = imagecodecs.imread(tmp_path / "one" / "overfit.png")
    assert picture.shape == (64, 4 * 64 + 3 * 4, 3)  # image, truth, prediction, probability


def test_a_network_that_learns_nothing_exits_with_one(pairs: Path) -> None:
    """One channel on two levels can't tell the nuclei's outlines."""
    arguments = ["--data", str(pairs), "--layout", "pairs", "--overfit-one", "--device", "cpu"]
    done = CliRunner().invoke(train, [*arguments, "--channels", "1,1", "--shuffle", "4"])
    assert isinstance(done.exception, NotLearnt)
    assert NotLearnt.exit_status == 1
    assert "should be over 0.98" in str(done.exception)


def test_of_two_classes_the_network_is_that_of_a_run(tmp_path: Path) -> None:
    """It had an output for each class, where that of a run has one for the second alone."""
    write_pairs(tmp_path, [f"{i}.tif" for i in range(5)], truth="masks")
    for mask in (tmp_path / "masks").iterdir():
        pixels = (tifffile.imread(mask) > 0) * np.uint8(255)
        tifffile.imwrite(mask, pixels, photometric="minisblack")
    arguments = ["--data", str(tmp_path), "--layout", "color-masks", "--palette", "binary"]
    CliRunner().invoke(
        train,
        [*arguments, "--channels", "4,8", "--overfit-one", "--device", "cpu",
         "--output", str(tmp_path / "one")],
    )  # fmt: skip
    network = json.loads((tmp_path / "one" / "overfit.json").read_text())["network"]
    assert network["n_out"] == 1


def test_an_output_that_cannot_be_written_is_refused_first(pairs: Path, tmp_path: Path) -> None:
    """The 100 steps came before, for nothing; and so did the data of a run and a preview."""
    (tmp_path / "file").write_text("")
    arguments = ["--data", str(pairs), "--layout", "pairs", "--output", str(tmp_path / "file")]
    for more in ([], ["--preview"], ["--overfit-one"]):
        done = CliRunner().invoke(train, [*arguments, "--device", "cpu", *more])
        assert str(done.exception).endswith("file is a file")
        assert not done.stderr


def test_images_of_one_value_at_the_coarsest_level_are_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path, [f"{i}.tif" for i in range(5)], size=12)
    arguments = ["--data", str(tmp_path), "--layout", "pairs", "--overfit-one", "--device", "cpu"]
    done = CliRunner().invoke(train, arguments)
    assert isinstance(done.exception, UsageError)
    assert "is 12x12 px, a single value at the coarsest level" in str(done.exception)


def test_a_patch_of_a_network_of_many_levels_is_larger(tmp_path: Path) -> None:
    write_pairs(tmp_path, [f"{i}.tif" for i in range(5)], size=260)
    arguments = ["--data", str(tmp_path), "--layout", "pairs", "--overfit-one", "--device", "cpu"]
    levels = ["--channels", "1,1,1,1,1,1,1,1", "--shuffle", "1"]  # a stride of 128 px
    done = CliRunner().invoke(train, [*arguments, *levels, "--patch", "128"])
    assert "one patch of 256x256 px" in done.stderr
    assert isinstance(done.exception, NotLearnt)
