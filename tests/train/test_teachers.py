"""What earlier runs give is learnt beside the truth."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tifffile import imread, imwrite
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
        ({"core_depth": 3.0}, r"was trained with another --core-depth \(2.0, here 3.0\)"),
        ({"instances": "none"}, r"was trained with another --instances \(cores, here none\)"),
        ({"normalisation": {"window": (0, 9)}}, "was trained with another --window; give the same"),
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


@pytest.mark.parametrize("content", [None, "{", "{}", '{"train": {"frames": []}, "val": {}}'])
def test_a_teacher_that_does_not_tell_is_refused(
    pairs: Path, taught: Path, tmp_path: Path, content: str | None
) -> None:
    copied = shutil.copytree(taught, tmp_path / "copied")
    (copied / "split.json").unlink()
    if content is not None:
        (copied / "split.json").write_text(content)
    with pytest.raises(UsageError, match=r"split.json does not tell which images it has seen"):
        Teachers.of(small(pairs, teachers=(str(copied),)), load_data(small(pairs)), CPU)


def as_seen(taught: Path, folder: Path, **parts: list[str]) -> str:
    """The run in `taught`, had it seen images of these hashes."""
    shutil.copytree(taught, folder)
    seen = {part: {"frames": [], "sha256": parts.get(part, [])} for part in ("train", "val")}
    (folder / "split.json").write_text(json.dumps(seen))
    return str(folder)


@pytest.mark.parametrize(
    ("theirs", "ours", "refused"),
    [
        ("train", "test", True),
        ("train", "val", True),
        ("val", "test", True),
        ("val", "val", False),  # both choose by it
        ("train", "train", False),
        ("val", "train", False),
    ],
)
def test_which_parts_of_two_runs_may_share_an_image(
    pairs: Path, taught: Path, tmp_path: Path, theirs: str, ours: str, refused: bool
) -> None:
    data = load_data(small(pairs, test_fraction=0.2))
    image = data.images[getattr(data.split, ours)[0].name]
    other = as_seen(taught, tmp_path / "other", **{theirs: [image]})
    settings = small(pairs, test_fraction=0.2, teachers=(other,))
    if refused:
        with pytest.raises(UsageError, match="has learnt 1 image that this run holds back"):
            Teachers.of(settings, data, CPU)
    else:
        Teachers.of(settings, data, CPU)


def test_images_are_known_by_their_pixels_whatever_their_folder(
    pairs: Path, taught: Path, tmp_path: Path
) -> None:
    """A teacher of a renamed folder had passed, and one of other images of the same names not."""
    moved = shutil.copytree(pairs, tmp_path / "moved")
    for path in sorted(moved.rglob("*.tif")):
        path.rename(path.with_name(f"other-{path.name}"))
    settings = small(moved, teachers=(str(taught),), test_fraction=0.4)
    with pytest.raises(UsageError, match="that this run holds back"):
        Teachers.of(settings, load_data(settings), CPU)
    others = write_pairs(tmp_path / pairs.name, [f"{i}.tif" for i in range(10)])
    for path in (others / "images").iterdir():
        imwrite(path, imread(path)[::-1])
    settings = small(others, teachers=(str(taught),), test_fraction=0.4)
    Teachers.of(settings, load_data(settings), CPU)


def test_an_image_that_is_twice_in_the_data_is_no_secret(
    pairs: Path, taught: Path, tmp_path: Path
) -> None:
    data = load_data(small(pairs))
    image = data.images[data.split.train[0].name]
    twice = {**data.images, data.split.val[0].name: image}
    other = as_seen(taught, tmp_path / "other", train=[image])
    Teachers.of(small(pairs, teachers=(other,)), replace(data, images=twice), CPU)


def test_teachers_predict_as_they_do_when_they_are_used(pairs: Path, taught: Path) -> None:
    """And not by the statistics of a batch."""
    settings = small(pairs, teachers=(str(taught),))
    teachers = Teachers.of(settings, load_data(settings), CPU)
    assert not any(part.training for network in teachers.networks for part in network.modules())


def test_an_epoch_learns_from_them_at_every_step(
    pairs: Path, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    own = Teachers.target

    def target(self: Teachers, image: Tensor, target: Tensor, step: int) -> Tensor:
        steps.append(step)
        return own(self, image, target, step)

    monkeypatch.setattr(Teachers, "target", target)
    alone = fit(small(pairs), tmp_path / "alone", note=silent)
    steps.clear()
    settings = small(pairs, teachers=(str(taught),), teacher_share=1)
    together = fit(settings, tmp_path / "together", note=silent)
    assert steps == list(range(6))
    assert any(not alone.weights[name].equal(w) for name, w in together.weights.items())


def test_a_folder_without_a_run_is_refused(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="there is no such folder; give the folder of a training run"
    ):
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
