"""A whole training run, small: what it leaves, that a seed repeats it, and that it learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from engine.errors import ModelError, OutputError, UsageError
from engine.model.file import find_model
from engine.model.spec import Normalisation
from engine.synthetic import TimeLapse
from tests.train.data import write_ctc, write_pairs
from train.checkpoint import load_checkpoint
from train.curves import Epoch, read_rows
from train.data.frames import make_frame
from train.data.patches import whole_frame
from train.fit import fit
from train.losses import segmentation_loss
from train.networks import NetworkArgs, UNet
from train.optimise import learning_rate, resolve_arithmetic
from train.settings import TrainSettings
from train.start import start_from


def _settings(data: Path, **values: Any) -> TrainSettings:
    small = {"layout": "pairs", "channels": (2, 4), "patch": 32, "batch": 2, "workers": 0}
    run = {"epochs": 2, "steps_per_epoch": 3, "device": "cpu", "precision": "fp32"}
    return TrainSettings.model_validate(small | run | {"data": str(data)} | values)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), [f"{i}.tif" for i in range(10)])


def _silent(_: str) -> None:
    pass


def test_a_run_leaves_all_it_promises(pairs: Path, tmp_path: Path) -> None:
    said: list[str] = []
    settings = _settings(pairs, test_fraction=0.2, synthetic=2, strip_every=2)
    best = fit(settings, tmp_path / "run", note=said.append)
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {
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


def test_a_checkpoint_says_all_and_builds_the_network_again(pairs: Path, tmp_path: Path) -> None:
    settings = _settings(pairs)
    fit(settings, tmp_path, note=_silent)
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
        fit(_settings(pairs, seed=seed, workers=workers), tmp_path / name, note=_silent)
    first, again, other = ((tmp_path / n / "history.csv").read_text() for n in "abc")
    assert first == again
    assert first != other


def test_an_interrupted_run_goes_on_to_the_same_end(pairs: Path, tmp_path: Path) -> None:
    settings = _settings(pairs, epochs=3)
    whole = fit(settings, tmp_path / "whole", note=_silent)

    def interrupt(row: Epoch) -> None:
        if row.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(settings, tmp_path / "cut", note=_silent, report=interrupt)
    resumed = fit(settings, tmp_path / "cut", note=_silent, resume=True)
    histories = [(tmp_path / name / "history.csv").read_text() for name in ("whole", "cut")]
    assert histories[0] == histories[1]
    assert resumed.scores == whole.scores
    assert all(torch.equal(w, resumed.weights[name]) for name, w in whole.weights.items())


def test_a_run_does_not_go_on_with_other_settings(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no training run to resume"):
        fit(_settings(pairs), tmp_path, note=_silent, resume=True)
    fit(_settings(pairs, epochs=1), tmp_path, note=_silent)
    with pytest.raises(UsageError, match="started with other settings"):
        fit(_settings(pairs, epochs=2), tmp_path, note=_silent, resume=True)


def test_a_run_starts_from_the_weights_of_another(pairs: Path, tmp_path: Path) -> None:
    first = fit(_settings(pairs, epochs=1), tmp_path / "first", note=_silent)
    network, patches = UNet(1, 1, (2, 4)), torch.rand(2, 1, 8, 8)
    onward = _settings(pairs, epochs=1, init=str(tmp_path / "first"))
    start_from(network, NetworkArgs("unet", 1, 1, (2, 4)), onward, patches)
    assert all(torch.equal(w, first.weights[name]) for name, w in network.state_dict().items())
    said: list[str] = []
    second = fit(onward, tmp_path / "second", note=said.append)
    assert any("starting from the best weights" in words for words in said)
    assert second.hashes["settings"] != first.hashes["settings"]
    assert len(second.hashes["init"]) == 64
    with pytest.raises(UsageError, match="its network is"):
        start_from(UNet(1, 1, (2, 6)), NetworkArgs("unet", 1, 1, (2, 6)), onward, patches)


def test_a_run_starts_from_a_model_that_was_exported(pairs: Path, tmp_path: Path) -> None:
    """The model's batch normalisation is folded away; the network gives what the model gives."""
    settings = _settings(pairs, epochs=1, init="nuclei", channels=(16, 32, 64, 128))
    network = UNet(1, settings.n_outputs, settings.channels)
    image = torch.rand(3, 1, 64, 48)
    start_from(network, NetworkArgs("unet", 1, 1, settings.channels), settings, image)
    session = onnxruntime.InferenceSession(str(find_model("nuclei")))
    statistics = np.tile(np.float32([0, 1]), (3, 1, 1))
    wanted = session.run(None, {"image": image.numpy(), "statistics": statistics})[0]
    with torch.inference_mode():
        for network_now in (network.eval(), network.train()):  # statistics are those of `image`
            found = torch.sigmoid(network_now(image)).numpy()
            assert np.abs(found - wanted).max() < 1e-4
    with pytest.raises(UsageError, match="give the --arch, --preset and --channels"):
        start_from(UNet(1, 1, (2, 4)), NetworkArgs("unet", 1, 1, (2, 4)), settings, image)


def test_one_sequence_is_split_by_time_and_said(tmp_path: Path) -> None:
    data, said = write_ctc(tmp_path / "data", {"01": 21}), list[str]()
    settings = _settings(data, layout="ctc", frames=(0, 17), ignore_border=10)
    fit(settings, tmp_path / "run", note=said.append)
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert split["val"]["frames"] == ["01/t008"]
    assert split["train"]["frames"][-1] == "01/t016"
    assert any("by time" in words for words in said)


def test_a_folder_that_holds_a_run_is_left_alone(pairs: Path, tmp_path: Path) -> None:
    fit(_settings(pairs, epochs=1), tmp_path, note=_silent)
    before = (tmp_path / "best.pt").read_bytes()
    with pytest.raises(OutputError, match="already holds a training run"):
        fit(_settings(pairs), tmp_path, note=_silent)
    assert (tmp_path / "best.pt").read_bytes() == before


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "best.pt")
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"weights": 1}, tmp_path / "other.pt")
    for name in ("text.pt", "other.pt"):
        with pytest.raises(ModelError, match="not a checkpoint"):
            load_checkpoint(tmp_path / name)


def test_the_learning_rate_rises_then_falls_to_nothing(tmp_path: Path) -> None:
    settings = _settings(tmp_path, epochs=10, steps_per_epoch=100, lr=1.0)
    rates = [learning_rate(step, settings) for step in range(1000)]
    peak = int(np.argmax(rates))
    assert peak == 100
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[peak] == 1.0
    assert rates[-1] < 1e-4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize(
    ("has", "bf16"),
    [((), False), (("_is_amx_tile_supported",), True), (("_is_avx512_bf16_supported",), True)],
)
def test_bf16_is_taken_where_the_processor_has_instructions_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has: tuple[str, ...], bf16: bool
) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name in has, raising=False)
    found = resolve_arithmetic(_settings(tmp_path, precision="auto"))
    assert found.precision == ("bf16" if bf16 else "fp32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="finds no CUDA device"):
        resolve_arithmetic(_settings(tmp_path, device="cuda"))


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    for values, words in (
        ({"patch": 33}, "not a multiple of the network's stride 2; use 32"),
        ({"frames": (0, 5)}, "layout ctc only"),
        ({"layout": "ctc", "frames": (5, 5)}, "hold no frame"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "nothing to train on"),
        ({"epoch": 3}, "Extra inputs"),
    ):
        with pytest.raises(ValueError, match=words):
            _settings(tmp_path, **values)


def test_a_network_learns_one_frame_by_heart() -> None:
    """The oldest check of a training loop: target, loss, network and optimiser fit together."""
    torch.manual_seed(0)
    pixels, labels = TimeLapse(shape=(1, 64, 64), seed=2, density=2500).frame(0)
    frame = make_frame("one", pixels[None], labels.astype(np.int32), Normalisation())
    settings = _settings(Path(), channels=(8, 16, 32))
    example = whole_frame(frame, settings)
    network = UNet(1, settings.n_outputs, settings.channels)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(100):
        logits = network(example.image[None])
        loss = segmentation_loss(logits, example.target[None], example.weight[None], settings)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.inference_mode():
        found = network.eval()(example.image[None])[0] > 0
    target = example.target > 0
    assert target.sum() > 300
    assert (found & target).sum() / (found | target).sum() > 0.95
