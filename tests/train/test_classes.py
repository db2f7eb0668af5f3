"""Classes of pixels: loss, scores, a whole run, and predictions that leave classes out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from engine.errors import UsageError
from export.onnx import _classes, _cores, _instances, export_run
from tests.train.heart import heart_settings, write_hearts
from tests.train.runs import silent
from train.checkpoint import load_checkpoint
from train.cli import train
from train.data.dataset import load_data
from train.fit import fit
from train.networks import build_network, n_weights
from train.overfit import NotLearnt
from train.policies import POLICIES
from train.preview import write_preview
from train.rows import read_rows, write_rows
from train.settings import TrainSettings
from train.summary import read_summary
from train.tasks import Classes, task_of
from train.tasks.class_losses import class_cross_entropy, class_dice_loss, class_logits
from train.tasks.class_scores import ClassEpoch, ClassScores, confusion
from train.tasks.classes import Collapse, automatic_weights

TWO = {"classes": [{"name": "background", "color": "#000000"},
                   {"name": "heart", "colors": ["#00ff00", "#ff0000", "#0000ff"]}]}  # fmt: skip


@pytest.fixture(scope="module")
def hearts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hearts(tmp_path_factory.mktemp("hearts") / "data", patients=10)


def one_hot(labels: torch.Tensor, k: int) -> torch.Tensor:
    return functional.one_hot(labels, k).movedim(-1, 1).float()


def test_cross_entropy_is_pytorchs_own() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 4, 5, 6), generator=generator)
    labels = torch.randint(4, (2, 5, 6), generator=generator)
    weights = torch.tensor([1.0, 2, 3, 4])
    ours = class_cross_entropy(logits, one_hot(labels, 4), weights[labels][:, None])
    torch.testing.assert_close(ours, functional.cross_entropy(logits, labels, weights))


def test_one_output_is_the_second_of_two_classes() -> None:
    logits, labels = torch.randn(2, 1, 4, 4), torch.randint(2, (2, 4, 4))
    ours = class_cross_entropy(class_logits(logits), one_hot(labels, 2), torch.ones(2, 1, 4, 4))
    binary = functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
    torch.testing.assert_close(ours, binary)


def test_dice_is_the_mean_of_the_classes_that_occur() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[0, :2] = 2  # half is class 2, half background; 1 and 3 are nowhere
    target, weight = one_hot(labels, 4), torch.ones(1, 1, 4, 4)
    assert class_dice_loss(60 * target - 30, target, weight) < 1e-4
    background = torch.zeros(1, 4, 4, 4)
    background[:, 0] = 60
    expected = 1 - ((2 * 8 + 1) / (16 + 8 + 1) + 1 / 9) / 2
    assert class_dice_loss(background, target, weight).item() == pytest.approx(expected)
    ignored = torch.where(labels[:, None] == 2, 0.0, 1.0)
    assert class_dice_loss(background, target, ignored).item() == pytest.approx(0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_scores_are_those_of_masks_compared(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    truth, found = rng.integers(0, k, (2, 3, 6, 7))
    counted = rng.random(truth.shape) < 0.7
    names = tuple("abcde"[:k])
    parts = [confusion(*one, k) for one in zip(truth, found, counted, strict=True)]
    scores = ClassScores(names, np.sum(parts, axis=0))
    for at, name in list(enumerate(names))[1:]:
        a, b = (truth == at) & counted, (found == at) & counted
        dice = 2 * (a & b).sum() / (a.sum() + b.sum()) if (a | b).any() else math.nan
        iou = (a & b).sum() / (a | b).sum() if (a | b).any() else math.nan
        assert scores.dice[name] == pytest.approx(dice, nan_ok=True)
        assert scores.iou[name] == pytest.approx(iou, nan_ok=True)
    assert scores.mean_dice == pytest.approx(np.nanmean(list(scores.dice.values())), nan_ok=True)
    assert scores.accuracy == pytest.approx((truth == found)[counted].mean())


def scores(table: list[list[int]]) -> ClassScores:
    return ClassScores(("background", "myocardium", "cavity"), np.array(table))


def test_what_is_left_out_is_said_once_for_each_change() -> None:
    watch = Collapse()
    nothing = scores([[90, 0, 0], [5, 0, 0], [5, 0, 0]])
    words = watch.see(1, nothing)
    assert words is not None
    assert "nothing but background" in words and "myocardium, cavity" in words
    assert "accuracy 0.900" in words and "--class-weights auto" in words
    assert watch.see(2, nothing) is None
    lacking = watch.see(3, scores([[90, 0, 0], [1, 4, 0], [5, 0, 0]]))
    assert lacking is not None and "never finds cavity" in lacking
    found = watch.see(4, scores([[90, 0, 0], [1, 4, 0], [0, 0, 5]]))
    assert found is not None and "every class" in found
    assert Collapse().see(1, scores([[90, 0, 1], [1, 4, 0], [0, 0, 0]])) is None, "none to find"


def test_rare_classes_weigh_more(hearts: Path) -> None:
    data = load_data(heart_settings(hearts))
    weights = automatic_weights(data.train, 4)
    counts = sum(np.bincount(frame.labels.ravel(), minlength=4) for frame in data.train)
    assert weights == pytest.approx(np.sqrt(counts[0] / counts), rel=1e-3)
    how = heart_settings(hearts, class_weights="auto")
    assert task_of(how).settled(data.train).class_weights == weights
    target, weight = Classes(heart_settings(hearts, class_weights=(1, 2, 3, 4))).targets(
        np.array([[0, 3], [1, 2]], np.int32)
    )
    assert target.shape == (4, 2, 2) and target.argmax(axis=0).tolist() == [[0, 3], [1, 2]]
    assert weight.tolist() == [[[1, 4], [2, 3]]]


def test_rows_of_classes_come_back(tmp_path: Path) -> None:
    row = ClassEpoch(1, 3, 0.5, 1.0, 0.5, 1.5, 0.25, 0.75, {"left atrium": 0.75, "x": math.nan},
                     {"left atrium": 0.5, "x": math.nan})  # fmt: skip
    write_rows(tmp_path / "history.csv", [row])
    assert "val_dice_left atrium" in (tmp_path / "history.csv").read_text().splitlines()[0]
    (back,) = read_rows(tmp_path / "history.csv", ClassEpoch)
    assert back.as_row() == pytest.approx(row.as_row(), nan_ok=True)


def test_a_run_of_classes_leaves_all_it_promises(hearts: Path, tmp_path: Path) -> None:
    run, said = tmp_path / "run", list[str]()
    how = heart_settings(hearts, test_fraction=0.2, strip_every=2, class_weights="auto")
    best = fit(how, run, note=said.append)
    assert {p.name for p in run.iterdir()} - {"tensorboard"} == {
        "best.pt", "last.pt", "history.csv", "curves.png", "settings.json", "split.json",
        "confusion-val.csv", "confusion-test.csv", "summary.json", "timings.csv", "strips",
    }  # fmt: skip
    assert {"val_mean_dice", "val_iou", "test_accuracy"} <= set(best.scores)
    assert best.chosen == {} and read_summary(run).chosen == {}
    history = read_rows(run / "history.csv", ClassEpoch)
    ranked = max(history, key=lambda row: row.val_mean_dice)
    assert best.scores["val_mean_dice"] == pytest.approx(ranked.val_mean_dice, abs=1e-5)
    assert list(history[0].val_dice) == ["right ventricle", "myocardium", "left ventricle"]
    assert len(best.settings.class_weights or ()) == 4
    assert fit(how, run, note=silent, resume=True).scores == best.scores


def test_a_network_learns_the_classes_of_the_pictures(hearts: Path, tmp_path: Path) -> None:
    how = heart_settings(
        hearts, epochs=2, steps_per_epoch=50, lr=0.02, augment="none", channels=(8, 16)
    )
    best = fit(how, tmp_path / "run", note=silent)
    assert best.scores["val_mean_dice"] > 0.7
    spec = export_run(tmp_path / "run", tmp_path / "heart.onnx")
    assert [(c.name, c.color) for c in spec.classes] == [
        ("background", "#000000"), ("right ventricle", "#00ff00"),
        ("myocardium", "#ff0000"), ("left ventricle", "#0000ff"),
    ]  # fmt: skip
    assert spec.instances == "none" and spec.scores["val_mean_dice"] > 0.7
    session = onnxruntime.InferenceSession(str(tmp_path / "heart.onnx"))
    frame = load_data(how).val[0]
    height, width = (side // 2 * 2 for side in frame.shape)
    image = frame.image[None, :, :height, :width].astype(np.float32)
    (found,) = session.run(None, {"image": image, "statistics": frame.statistics[None]})
    assert np.mean(found[0].argmax(axis=0) == frame.labels[:height, :width]) > 0.9


def test_two_classes_are_one_output_and_a_class_map(hearts: Path, tmp_path: Path) -> None:
    how = heart_settings(hearts, palette=TWO, epochs=1)
    assert how.n_outputs == 1
    best = fit(how, tmp_path / "run", note=silent)
    assert best.network.n_out == 1 and "val_dice_heart" in best.scores
    assert [(c.name, c.color) for c in _classes(best)][1] == ("heart", "#00ff00")
    assert _instances(best) == "none" and _cores(best) is None


def test_a_run_that_is_made_to_find_background_is_named(hearts: Path, tmp_path: Path) -> None:
    """Pixels far below the scale of the range: every patch looks empty."""
    said: list[str] = []
    how = heart_settings(
        hearts, normalisation={"policy": "range", "low": 0, "high": 1e9}, lr=0.05,
        loss="ce", steps_per_epoch=10,
    )  # fmt: skip
    fit(how, tmp_path / "run", note=said.append)
    assert sum("nothing but background" in words for words in said) == 1


def test_the_preset_for_hearts_takes_any_number_of_classes() -> None:
    from train.presets import PRESETS

    for n_classes in (3, 4, 9):
        classes = [{"name": str(i), "color": [i, 0, 0]} for i in range(n_classes)]
        how = TrainSettings.model_validate(
            {"data": ".", "layout": "color-masks", "palette": {"classes": classes}}
            | PRESETS["heart"]
        )
        network = build_network(how.network(1, how.n_outputs))
        assert network(torch.rand(1, 1, 17, 20)).shape == (1, n_classes, 17, 20)
        assert n_weights(network) == 1_862_912 + 65 * n_classes


def test_the_preview_has_the_colours_of_the_classes(hearts: Path, tmp_path: Path) -> None:
    import imagecodecs

    path = write_preview(heart_settings(hearts), tmp_path, silent)
    colours = {tuple(c) for c in imagecodecs.png_decode(path.read_bytes()).reshape(-1, 3).tolist()}
    assert {(0, 255, 0), (255, 0, 0), (0, 0, 255)} <= colours


def test_classes_from_the_command_line(hearts: Path, tmp_path: Path) -> None:
    basis = ["--data", str(hearts), "--layout", "color-masks"]
    small = ["--channels", "2,4", "--epochs", "1", "--steps-per-epoch", "1", "--patch", "32",
             "--batch", "2", "--workers", "0", "--device", "cpu"]  # fmt: skip
    run = ["--palette", "acdc", "--output", str(tmp_path / "run"), "--augment", "source",
           "--class-weights", "1,2,2,2"]  # fmt: skip
    result = CliRunner().invoke(train, [*basis, *small, *run], catch_exceptions=False)
    assert result.exit_code == 0
    assert "val Dice" in result.stderr and "left ventricle" in result.stderr
    assert "val_accuracy" in result.stdout
    how = load_checkpoint(tmp_path / "run" / "best.pt").settings
    assert (how.dice, how.ema, how.shuffle, how.channels) == (1.0, 0.99, 2, (2, 4))
    assert how.augment == POLICIES["source"]
    for options, words in (
        (["--palette", "acdc", "--instances", "cores"], "--instances: is for objects"),
        (["--palette", "acdc", "--class-weights", "1,2"], "2 numbers for 4 classes"),
        (["--palette", "acdc", "--loss", "bce"], "loss bce is not one of classes"),
        (["--palette", "heart"], "neither a file nor one of acdc, binary, heart-ct"),
        ([], "needs a palette"),
    ):
        with pytest.raises(UsageError, match=words):
            CliRunner().invoke(train, [*basis, *options], catch_exceptions=False)


def test_one_patch_of_classes_is_learnt_by_heart(hearts: Path, tmp_path: Path) -> None:
    options = ["--data", str(hearts), "--layout", "color-masks", "--palette", "acdc",
               "--overfit-one", "--device", "cpu", "--output", str(tmp_path)]  # fmt: skip
    done = CliRunner().invoke(train, [*options, "--channels", "16,32"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    history = json.loads((tmp_path / "overfit.json").read_text())["history"]
    assert history[-1]["mean_dice"] > 0.98 and "mean Dice" in done.stderr
    blind = CliRunner().invoke(train, [*options, "--channels", "1,1", "--shuffle", "4"])
    assert isinstance(blind.exception, NotLearnt) and "its mean Dice is" in str(blind.exception)
