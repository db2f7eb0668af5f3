"""What earlier runs give is learnt beside the truth."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.errors import ModelError, UsageError
from tests.train.data import write_pairs
from tests.train.runs import silent, small
from train.checkpoint import load_checkpoint, save_checkpoint, settings_hash
from train.data.dataset import load_data
from train.fit import fit
from train.networks import Network
from train.optimise import Arithmetic
from train.teachers import MIRRORS, Teachers

CPU = Arithmetic(torch.device("cpu"), "fp32")


class Pixelwise(Network):
    """Gives a multiple of each pixel, so that a mirror image gives the mirrored output."""

    def __init__(self, factor: float) -> None:
        super().__init__(n_in=1, stride=1)
        self.factor = factor

    def logits(self, image: Tensor) -> Tensor:
        return self.factor * image.repeat(1, 2, 1, 1)


class Ramp(Network):
    """Gives the column's number, whatever is in the image."""

    def __init__(self) -> None:
        super().__init__(n_in=1, stride=1)

    def logits(self, image: Tensor) -> Tensor:
        return torch.arange(image.shape[3]).expand(len(image), 2, *image.shape[2:]).float()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), [f"{i}.tif" for i in range(10)])


@pytest.fixture(scope="module")
def taught(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("taught")
    fit(small(pairs), run, note=silent)
    return run


@pytest.mark.parametrize("step", range(len(MIRRORS)))
def test_the_target_lies_between_the_truth_and_the_mean_of_the_teachers(step: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(3, 1, 5, 7, generator=generator)
    truth = (torch.rand(3, 2, 5, 7, generator=generator) > 0.5).float()
    teachers = Teachers((Pixelwise(1), Pixelwise(-3)), 0.25, CPU)

    found = teachers.target(image, truth, step)

    given = (torch.sigmoid(image) + torch.sigmoid(-3 * image)) / 2
    torch.testing.assert_close(found, 0.75 * truth + 0.25 * given.expand_as(truth))


def test_a_teacher_sees_every_mirror_image_in_turn() -> None:
    image, truth = torch.zeros(1, 1, 4, 6), torch.zeros(1, 2, 4, 6)
    targets = [Teachers((Ramp(),), 1.0, CPU).target(image, truth, step) for step in range(4)]

    columns = torch.sigmoid(torch.arange(6.0)).expand(1, 2, 4, 6)
    for target, axes in zip(targets, MIRRORS, strict=True):
        torch.testing.assert_close(target, columns.flip(axes))


def test_without_teachers_the_truth_is_learnt() -> None:
    truth = torch.ones(1, 2, 4, 4)
    assert Teachers((), 0.5, CPU).target(torch.zeros(1, 1, 4, 4), truth, 0) is truth


def test_a_run_names_its_teachers_by_their_weights(
    pairs: Path, taught: Path, tmp_path: Path
) -> None:
    best = fit(small(pairs, teachers=(str(taught),)), tmp_path / "run", note=silent)
    assert len(best.hashes["teachers"]) == 64
    assert "teachers" not in load_checkpoint(taught / "best.pt").hashes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"core_depth": 3.0}, "was trained with core_depth 2.0, and this run has 3.0"),
        ({"instances": "none"}, "was trained with instances cores, and this run has none"),
    ],
)
def test_a_teacher_of_something_else_is_refused(
    pairs: Path, taught: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    settings = small(pairs, teachers=(str(taught),), **changes)
    with pytest.raises(UsageError, match=words):
        fit(settings, tmp_path / "run", note=silent)


def test_a_teacher_of_other_images_is_refused(pairs: Path, taught: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    checkpoint = load_checkpoint(taught / "best.pt")
    save_checkpoint(
        other / "best.pt", replace(checkpoint, network=replace(checkpoint.network, n_in=3))
    )
    settings = small(pairs, teachers=(str(other),))
    with pytest.raises(UsageError, match="takes 3 channels, and these images have 1"):
        Teachers.of(settings, load_data(settings), CPU)


def test_a_teacher_that_knows_what_is_held_back_is_refused(
    pairs: Path, taught: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"has learnt \d+ images that this run holds back"):
        fit(small(pairs, teachers=(str(taught),), test_fraction=0.3), tmp_path / "run", note=silent)


def test_a_teacher_that_does_not_tell_is_refused(pairs: Path, taught: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(taught, tmp_path / "copied")
    (copied / "split.json").write_text("{}")
    with pytest.raises(UsageError, match=r"split.json is gone or damaged"):
        fit(small(pairs, teachers=(str(copied),)), tmp_path / "run", note=silent)


def test_a_folder_without_a_run_is_refused(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="train first"):
        fit(small(pairs, teachers=(str(tmp_path / "none"),)), tmp_path / "run", note=silent)


def test_where_a_teacher_lies_does_not_matter() -> None:
    here, there, both = (
        settings_hash(small("data", teachers=folders))
        for folders in (("a/run",), ("b/two",), ("a", "b"))
    )
    assert here == there != both


def test_a_run_does_not_go_on_with_another_teacher(
    pairs: Path, taught: Path, tmp_path: Path
) -> None:
    fit(small(pairs, teachers=(str(taught),)), tmp_path / "run", note=silent)
    fit(small(pairs, seed=1), tmp_path / "other", note=silent)
    with pytest.raises(UsageError, match="was started with another --teacher"):
        fit(
            small(pairs, teachers=(str(tmp_path / "other"),)),
            tmp_path / "run",
            note=silent,
            resume=True,
        )
