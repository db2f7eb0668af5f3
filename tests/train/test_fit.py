"""A whole training run, small: what it leaves, that a seed repeats it, and that it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tifffile
import torch

from engine.errors import ModelError, OutputError, UsageError
from engine.model.file import find_model
from tests.train.data import write_ctc, write_pairs
from tests.train.runs import silent, small
from train.checkpoint import load_checkpoint
from train.curves import Epoch, Timing, read_rows
from train.data.dataset import find_frames, load_data
from train.data.patches import Patches, shares_by_area
from train.data.splits import split_frames
from train.fit import fit
from train.loader import batches
from train.networks import NetworkArgs, UNet, build_network, n_weights
from train.presets import PRESETS
from train.settings import TrainSettings
from train.start import start_from
from train.summary import read_summary


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), [f"{i}.tif" for i in range(10)])


def test_a_run_leaves_all_it_promises(pairs: Path, tmp_path: Path) -> None:
    said: list[str] = []
    settings = small(pairs, test_fraction=0.2, synthetic=2, strip_every=2)
    best = fit(settings, tmp_path / "run", note=said.append)
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names - {"tensorboard"} == {
        "best.pt", "last.pt", "history.csv", "curves.png",
        "settings.json", "split.json", "threshold.csv", "summary.json", "timings.csv", "strips",
    }  # fmt: skip
    history = read_rows(tmp_path / "run" / "history.csv", Epoch)
    assert [row.epoch for row in history] == [1, 2]
    assert [row.step for row in history] == [3, 6]
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert [len(split[part]["frames"]) for part in ("train", "val", "test")] == [6, 2, 2]
    assert split["synthetic"] == {"train": 2, "val": 1}
    saved = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert TrainSettings.model_validate(saved) == settings
    assert set(best.scores) == {
        f"{p}_{s}" for p in ("val", "test") for s in ("iou", "seg", "f1", "f1_50")
    }
    assert "by group" in said[0]
    assert [p.name for p in (tmp_path / "run" / "strips").iterdir()] == ["epoch-002.png"]


def test_the_summary_says_what_came_of_it(pairs: Path, tmp_path: Path) -> None:
    best = fit(small(pairs, test_fraction=0.2), tmp_path, note=silent)
    summary = read_summary(tmp_path)
    history = read_rows(tmp_path / "history.csv", Epoch)
    timings = read_rows(tmp_path / "timings.csv", Timing)
    assert summary.weights == n_weights(best.build())
    assert (summary.epochs, summary.steps, summary.best_epoch) == (2, 6, best.epoch)
    assert summary.loss["val"] == pytest.approx(history[best.epoch - 1].val_loss, rel=1e-5)
    assert summary.scores == best.scores and summary.chosen == best.chosen
    assert "test_iou" in summary.scores
    assert summary.frame == [1, 64, 64]
    assert (summary.device, summary.precision) == ("cpu", "fp32")
    assert summary.seconds == pytest.approx(sum(t.seconds for t in timings), abs=0.01)
    assert 0 <= summary.share_waited <= 1
    assert all(0 <= t.waited <= t.seconds for t in timings)
    assert summary.processor and summary.versions["torch"]


def test_averaged_weights_are_what_is_kept(pairs: Path, tmp_path: Path) -> None:
    plain = fit(small(pairs, epochs=1), tmp_path / "plain", note=silent)
    averaged = fit(small(pairs, epochs=1, ema=0.5), tmp_path / "averaged", note=silent)
    last = load_checkpoint(tmp_path / "averaged" / "last.pt")
    for name, fitted in plain.weights.items():
        assert torch.equal(last.fitted[name], fitted), "the average changes no step"
        assert torch.equal(last.weights[name], averaged.weights[name])
    name = "head.weight"
    assert not torch.equal(averaged.weights[name], plain.weights[name])
    assert not load_checkpoint(tmp_path / "plain" / "last.pt").fitted


def test_gradients_of_several_batches_make_one_step(pairs: Path, tmp_path: Path) -> None:
    """Without batch statistics and with weights alike, 2 x 2 patches are as good as 4."""
    plain = {"norm": "none", "loss": "bce", "border_weight": 0, "epochs": 1, "optimiser": "sgd"}
    at_once = fit(small(pairs, batch=4, **plain), tmp_path / "once", note=silent)
    in_two = fit(small(pairs, batch=2, accumulate=2, **plain), tmp_path / "two", note=silent)
    for name, weight in at_once.weights.items():
        torch.testing.assert_close(in_two.weights[name], weight, rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_no_number_names_its_files(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", [f"{i}.tif" for i in range(10)])
    hot = np.full((64, 64), 1000, np.float32)
    hot[20:40, 20:40] = 1200
    hot[::3] += 100
    hot[30, 30] = 3e38  # finite, but beyond all others
    tifffile.imwrite(data / "images" / "4.tif", hot)
    settings = small(data, patch=64, steps_per_epoch=20, input_range=None)
    split = split_frames(find_frames(settings), settings.val_fraction, settings.test_fraction)
    assert "images/4.tif" in {frame.name for frame in split.train}
    with pytest.raises(
        UsageError, match=r"loss is (nan|inf) at step \d+, in a batch of .*4\.tif.* reach"
    ):
        fit(settings, tmp_path / "run", note=silent)
    assert not (tmp_path / "run" / "last.pt").exists()


def test_weights_that_overflow_name_the_files_of_the_step_before(
    pairs: Path, tmp_path: Path
) -> None:
    settings = small(pairs, optimiser="sgd", lr=1e38, dice=1e9, norm="none")
    with pytest.raises(UsageError, match="after weights overflowed in the step before") as raised:
        fit(settings, tmp_path, note=silent)
    assert "at step 2" in str(raised.value)
    data = load_data(settings)
    first = next(batches(data, settings))
    for at in torch.as_tensor(first.frame).tolist():
        assert data.train[at].name in str(raised.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_follow_from_seed_epoch_and_index(workers: int, pairs: Path) -> None:
    settings = small(pairs, workers=workers, accumulate=2)
    data = load_data(settings)
    found = list(batches(data, settings, first_epoch=1))
    assert len(found) == settings.steps_per_epoch * 2
    shares = shares_by_area(data.train, data.is_synthetic, settings.synthetic_share)
    patches = Patches(data.train, shares, settings, epoch=1, count=12)
    images = torch.cat([batch.image for batch in found])
    assert torch.equal(images, torch.stack([patches[i].image for i in range(12)]))
    frames = torch.cat([torch.as_tensor(batch.frame) for batch in found])
    assert frames.tolist() == [patches[i].frame for i in range(12)]


def test_figures_for_tensorboard(pairs: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fit(small(pairs), tmp_path, note=silent)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    history = read_rows(tmp_path / "history.csv", Epoch)
    for name, figure in (("loss/train", "train_loss"), ("iou/val", "val_iou"), ("lr", "lr")):
        found = [(e.step, e.value) for e in events.Scalars(name)]
        expected = [(row.step, pytest.approx(getattr(row, figure), rel=1e-4)) for row in history]
        assert found == expected


def test_a_checkpoint_says_all_and_builds_the_network_again(pairs: Path, tmp_path: Path) -> None:
    settings = small(pairs)
    fit(settings, tmp_path, note=silent)
    last = load_checkpoint(tmp_path / "last.pt")  # by torch's weights_only loader
    assert last.settings == settings
    assert (last.epoch, last.step) == (2, 6)
    assert last.optimiser["param_groups"][0]["weight_decay"] == settings.weight_decay
    assert last.rng is not None
    assert set(last.hashes) == {"data", "code", "settings"}
    assert last.build()(torch.rand(1, 1, 8, 8)).shape == (1, 2, 8, 8), "foreground and core"
    best = load_checkpoint(tmp_path / "best.pt")
    assert set(best.chosen) == {"threshold", "core_threshold", "min_area"}


def test_the_same_seed_gives_the_same_history(pairs: Path, tmp_path: Path) -> None:
    for name, seed, workers in (("a", 3, 0), ("b", 3, 1), ("c", 4, 0)):
        fit(small(pairs, seed=seed, workers=workers), tmp_path / name, note=silent)
    first, again, other = ((tmp_path / n / "history.csv").read_text() for n in "abc")
    assert first == again
    assert first != other


def test_a_run_starts_from_the_weights_of_another(pairs: Path, tmp_path: Path) -> None:
    first = fit(small(pairs, epochs=1), tmp_path / "first", note=silent)
    onward, patches = small(pairs, epochs=1, init=str(tmp_path / "first")), torch.rand(2, 1, 8, 8)
    args = onward.network(1, onward.n_outputs)
    network = build_network(args)
    start_from(network, args, onward, patches)
    assert all(torch.equal(w, first.weights[name]) for name, w in network.state_dict().items())
    said: list[str] = []
    second = fit(onward, tmp_path / "second", note=said.append)
    assert any("starting from the best weights" in words for words in said)
    assert second.hashes["settings"] != first.hashes["settings"]
    assert len(second.hashes["init"]) == 64
    with pytest.raises(UsageError, match=r"differs from this run's \(.*channels \[2, 4\], here"):
        start_from(UNet(1, 1, (2, 6)), NetworkArgs("unet", 1, 1, (2, 6)), onward, patches)


def test_a_run_starts_from_a_model_that_was_exported(pairs: Path, tmp_path: Path) -> None:
    """The model's batch normalisation is folded away; the network gives what the model gives."""
    settings = small(pairs, epochs=1, init="nuclei", **PRESETS["nuclei"])
    args = settings.network(1, settings.n_outputs)
    network = build_network(args)
    image = torch.rand(3, 1, 64, 48)
    start_from(network, args, settings, image)
    session = onnxruntime.InferenceSession(str(find_model("nuclei")))
    statistics = np.tile(np.float32([0, 1]), (3, 1, 1))
    wanted = session.run(None, {"image": image.numpy(), "statistics": statistics})[0]
    with torch.inference_mode():
        for network_now in (network.eval(), network.train()):  # statistics are those of `image`
            found = torch.sigmoid(network_now(image)).numpy()
            assert np.abs(found - wanted).max() < 1e-4
    other = NetworkArgs("unet", 1, 1, (2, 4), activation="relu6")
    with pytest.raises(UsageError, match="give the --arch, --preset and --channels"):
        start_from(UNet(1, 1, (2, 4)), other, settings, image)
    with pytest.raises(UsageError, match="has relu6 and this run's relu; give --activation relu6"):
        start_from(network, replace(args, activation="relu"), settings, image)


def test_one_sequence_is_split_by_time_and_said(tmp_path: Path) -> None:
    data, said = write_ctc(tmp_path / "data", {"01": 21}), list[str]()
    settings = small(data, layout="ctc", frames=(0, 17), ignore_border=10)
    fit(settings, tmp_path / "run", note=said.append)
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert split["val"]["frames"] == ["01/t008"]
    assert split["train"]["frames"][-1] == "01/t016"
    assert any("by time" in words for words in said)


def test_a_folder_that_holds_a_run_is_left_alone(pairs: Path, tmp_path: Path) -> None:
    fit(small(pairs, epochs=1), tmp_path, note=silent)
    before = (tmp_path / "best.pt").read_bytes()
    with pytest.raises(OutputError, match="already holds a training run"):
        fit(small(pairs), tmp_path, note=silent)
    assert (tmp_path / "best.pt").read_bytes() == before


@pytest.mark.parametrize("name", ["settings.json", "split.json", "curves.png", "threshold.csv"])
def test_a_file_that_cannot_be_written_is_named(pairs: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(OutputError, match=f"{name}: is a folder"):
        fit(small(pairs, epochs=1), tmp_path, note=silent)


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "best.pt")
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"weights": 1}, tmp_path / "other.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "other.pt").read_bytes()[:-100])
    for name in ("text.pt", "other.pt", "cut.pt"):
        with pytest.raises(ModelError, match="not a checkpoint"):
            load_checkpoint(tmp_path / name)


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    for values, words in (
        ({"patch": 33}, "not a multiple of the network's stride 2; use 32"),
        ({"frames": (0, 5)}, "`layout` ctc only"),
        ({"layout": "ctc", "frames": (5, 5)}, "hold no frame"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "nothing to train on"),
        ({"epoch": 3}, "Extra inputs"),
    ):
        with pytest.raises(ValueError, match=words):
            small(tmp_path, **values)


def test_of_epochs_without_an_object_the_last_is_kept_and_said(pairs: Path, tmp_path: Path) -> None:
    """The first was kept, with a foreground IoU of 0.01 where the last had 0.8."""
    said = list[str]()
    best = fit(small(pairs, epochs=2, steps_per_epoch=1, lr=1e-9), tmp_path, note=said.append)
    assert best.scores["val_f1"] == 0
    assert best.epoch == 2
    assert any("this network is of no use yet; train for more epochs" in words for words in said)


def test_a_start_is_scored_and_a_worse_end_said(pairs: Path, tmp_path: Path) -> None:
    """A few steps at a high rate had undone the bundled model without a word."""
    said = list[str]()
    settings = small(pairs, epochs=1, lr=0.5, synthetic=4, init="nuclei", **PRESETS["nuclei"])
    fit(settings, tmp_path, note=said.append)
    (start,) = [words for words in said if words.startswith("before training")]
    assert "iou 0." in start and "f1 0." in start
    assert any("as good on the validation part as the start was" in words for words in said)


def test_strips_are_drawn_after_the_last_epoch_too(pairs: Path, tmp_path: Path) -> None:
    fit(small(pairs, epochs=3, steps_per_epoch=1, strip_every=2), tmp_path, note=silent)
    assert sorted(path.stem for path in (tmp_path / "strips").iterdir()) == [
        "epoch-002", "epoch-003",
    ]  # fmt: skip
