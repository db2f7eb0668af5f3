"""`stackseg train --overfit-one`: one patch by heart, or a non-zero exit."""

from __future__ import annotations

import json
from pathlib import Path

import imagecodecs
import pytest
from click.testing import CliRunner

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


@pytest.mark.parametrize("options", [[], ["--shuffle", "2"], ["--preset", "notebook"]])
def test_a_network_that_learns_nothing_exits_with_one(
    options: list[str], pairs: Path, tmp_path: Path
) -> None:
    arguments = ["--data", str(pairs), "--layout", "pairs", "--overfit-one", "--lr", "1e-9"]
    done = CliRunner().invoke(train, [*arguments, "--channels", "2,4", "--device", "cpu", *options])
    assert isinstance(done.exception, NotLearnt)
    assert NotLearnt.exit_status == 1
    assert "should be over 0.98" in str(done.exception)
