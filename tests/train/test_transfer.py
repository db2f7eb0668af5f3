"""Encoders taken from other networks: what is taken, from which files, and what stays frozen."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from engine.errors import UsageError
from export.graph import fold_batch_norm
from export.onnx import export_run
from tests.train.heart import heart_settings, write_hearts
from tests.train.runs import silent, small
from train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from train.cli import _unfreeze
from train.fit import fit
from train.freeze import freeze, frozen_levels
from train.networks import (
    NetworkArgs,
    TransferUNet,
    build_network,
    n_statistics,
    n_weights,
)
from train.optimise import build_optimiser, set_learning_rate
from train.settings import TrainSettings
from train.transfer import doubt_of_scale, transfer

h5py = pytest.importorskip("h5py")
CHANNELS = (4, 6, 8)


@pytest.fixture(scope="module")
def hearts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hearts(tmp_path_factory.mktemp("hearts") / "data")


def settings_of(**values: Any) -> TrainSettings:
    return heart_settings(".", arch="unet-transfer", channels=CHANNELS, **values)


def test_the_parameters_are_those_of_the_published_network() -> None:
    """31,040,136 that are learnt, 31,048,072 as Keras counts them: with means and variances."""
    with torch.device("meta"):
        network = build_network(NetworkArgs("unet-transfer", 3, 8, (64, 128, 256, 512, 1024)))
    assert n_weights(network) == 31_040_136
    assert n_weights(network) + n_statistics(network) == 31_048_072
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert n_statistics(network) == 2 * sum(m.num_features for m in norms) == 7_936
    drops = [m.p for m in network.decoders.modules() if isinstance(m, torch.nn.Dropout)]
    assert len(drops) == 4


def test_any_size_goes_through_and_folding_changes_nothing() -> None:
    network = build_network(NetworkArgs("unet-transfer", 2, 3, CHANNELS, dropout=0.2)).eval()
    image = torch.rand(2, 2, 21, 34)
    assert network(image).shape == (2, 3, 21, 34)
    torch.testing.assert_close(fold_batch_norm(network)(image), network(image))
    assert network.receptive_radius == build_network(
        NetworkArgs("unet", 2, 3, CHANNELS)
    ).receptive_radius  # fmt: skip


def keras_layers(n_in: int = 3, bias: bool = True) -> list[tuple[str, str, dict[str, np.ndarray]]]:
    """Layers of a U-Net as Keras has them: kernels in HWIO, an epsilon of 1e-3."""
    rng, layers, before = np.random.default_rng(0), [], n_in

    def add(kind: str, number: int, values: dict[str, np.ndarray]) -> None:
        name = kind if not number else f"{kind}_{number}"
        layers.append((name, kind, {k: v.astype(np.float32) for k, v in values.items()}))

    for at, channels in enumerate(c for c in CHANNELS for _ in range(2)):
        kernel = rng.normal(0, 0.3, (3, 3, before, channels))
        biases = {"bias": rng.normal(size=channels)} if bias else {}
        add("conv2d", at, {"kernel": kernel} | biases)
        add("batch_normalization", at, {
            "gamma": rng.uniform(0.5, 1.5, channels), "beta": rng.normal(size=channels),
            "moving_mean": rng.normal(size=channels),
            "moving_variance": rng.uniform(0.001, 0.1, channels),
        })  # fmt: skip
        before = channels
    add("conv2d_transpose", 0, {"kernel": rng.normal(size=(2, 2, 6, 8)), "bias": np.zeros(6)})
    add("conv2d", 6, {"kernel": rng.normal(size=(3, 3, 12, 6)), "bias": np.zeros(6)})
    add("conv2d", 7, {"kernel": rng.normal(size=(1, 1, 6, 8)), "bias": np.zeros(8)})
    return layers


CLASS = {"conv2d": "Conv2D", "batch_normalization": "BatchNormalization",
         "conv2d_transpose": "Conv2DTranspose"}  # fmt: skip


def description(layers: list[Any]) -> str:
    described = [{"class_name": "InputLayer", "config": {"name": "input"}}]
    for name, kind, _ in layers:
        described.append({"class_name": CLASS[kind], "config": {"name": name, "epsilon": 1e-3}})  # type: ignore[dict-item]
        described.append({"class_name": "ReLU", "config": {"name": f"relu after {name}"}})
    return json.dumps({"class_name": "Functional", "config": {"layers": described}})


def write_legacy(path: Path, layers: list[Any]) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = description(layers)
        top = file.create_group("model_weights")
        top.attrs["layer_names"] = [name.encode() for name, _, _ in layers]
        for name, _, values in layers:
            group = top.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{k}:0".encode() for k in values]
            for key, value in values.items():
                group[f"{name}/{key}:0"] = value
    return path


def write_weights(target: Any, layers: list[Any]) -> Any:
    with h5py.File(target, "w") as file:
        for name, _, values in layers:
            for at, value in enumerate(values.values()):
                file[f"layers/{name}/vars/{at}"] = value
    return target


def write_zipped(path: Path, layers: list[Any]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", description(layers))
        archive.writestr("model.weights.h5", write_weights(io.BytesIO(), layers).getvalue())
    return path


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.h5", write_legacy), ("a.weights.h5", write_weights), ("a.keras", write_zipped)],
)
def test_the_encoder_of_a_keras_file_computes_what_keras_would(
    name: str, write: Any, tmp_path: Path
) -> None:
    layers, said = keras_layers(), list[str]()
    network = TransferUNet(3, 8, CHANNELS).eval()
    digest = transfer(network, str(write(tmp_path / name, layers)), said.append)
    assert len(digest) == 64
    network.double()  # rounding of sums in fp32 would exceed 1e-4
    x = image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    for at in range(0, 12, 2):
        conv, norm = (
            {k: torch.from_numpy(v).double() for k, v in one[2].items()}
            for one in layers[at : at + 2]
        )
        x = functional.conv2d(x, conv["kernel"].permute(3, 2, 0, 1), conv["bias"], padding=1)
        scale = norm["gamma"] / torch.sqrt(norm["moving_variance"] + 1e-3)
        centred = x - norm["moving_mean"][:, None, None]
        x = torch.relu(centred * scale[:, None, None] + norm["beta"][:, None, None])
        if at in (2, 6):
            x = functional.max_pool2d(x, 2)
    with torch.inference_mode():
        ours = image
        for level, encode in enumerate(network.encoders):
            ours = encode(ours if level == 0 else network.pool(ours))
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)
    table = "\n".join(said)
    assert table.count(": taken") == 12
    assert "1 more: not taken" in table and "way up and output layer: new" in table


def test_grey_is_the_sum_over_red_green_and_blue(tmp_path: Path) -> None:
    layers, said = keras_layers(bias=False), list[str]()
    network = TransferUNet(1, 4, CHANNELS)
    transfer(network, str(write_legacy(tmp_path / "a.h5", layers)), said.append)
    kernel = torch.from_numpy(layers[0][2]["kernel"]).permute(3, 2, 0, 1)
    found = network.state_dict()["encoders.0.0.weight"]
    torch.testing.assert_close(found, kernel.sum(dim=1, keepdim=True))
    assert not network.state_dict()["encoders.0.0.bias"].any()
    assert any("adapted from 3 channels; bias 0" in words for words in said)


@pytest.mark.parametrize(
    "values", [{}, {"norm": "none"}, {"conv_bias": True}, {"arch": "unet-transfer"}]
)
def test_an_encoder_of_ours(values: dict[str, Any], tmp_path: Path) -> None:
    how = small(".", channels=CHANNELS, instances="none", patch=32, **values)
    args = how.network(1, 1)
    theirs = build_network(args)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -1, 1)  # type: ignore[arg-type]
    save_checkpoint(tmp_path / "best.pt", Checkpoint(args, theirs.state_dict(), how, 1, 1, 0.5))
    network, said = TransferUNet(1, 4, CHANNELS), list[str]()
    transfer(network, str(tmp_path), said.append)
    image = torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        for ours, other in zip(network.eval().encoders, theirs.eval().encoders, strict=True):  # type: ignore[arg-type]
            expected = other(image)
            torch.testing.assert_close(ours(image), expected, rtol=1e-3, atol=1e-4)
            image = functional.max_pool2d(expected, 2)


def test_an_encoder_of_another_scale_is_noticed_and_brought_to_ours(tmp_path: Path) -> None:
    """It learnt from pixels of 0 to 255; ours are 0 to 1."""
    how = small(".", channels=CHANNELS, instances="none", patch=32)
    theirs, images = build_network(how.network(1, 1)), torch.rand(6, 1, 16, 16)
    theirs.train()
    for _ in range(60):
        theirs.logits(255 * images)
    args = how.network(1, 1)
    save_checkpoint(tmp_path / "best.pt", Checkpoint(args, theirs.state_dict(), how, 1, 1, 0.5))
    network, said = TransferUNet(1, 4, CHANNELS).eval(), list[str]()
    transfer(network, str(tmp_path), silent)
    words = doubt_of_scale(network, images)
    assert words is not None and "--transfer-white" in words
    times = float(words.split(" times")[0].split()[-1])
    assert times == pytest.approx(255, rel=0.1)
    transfer(network, str(tmp_path), said.append, white=255)
    assert doubt_of_scale(network, images) is None
    assert any("reached 255 where ours reach 1" in words for words in said)
    with torch.inference_mode():
        expected = theirs.eval().encoders[0](255 * images)  # type: ignore[index]
        torch.testing.assert_close(network.encoders[0](images), expected, rtol=1e-3, atol=1e-3)
    assert doubt_of_scale(TransferUNet(1, 4, CHANNELS), images) is None, "nothing was taken"
    with pytest.raises(ValueError, match="`transfer_white` is of a transferred encoder"):
        settings_of(transfer_white=255)


def test_taking_nothing_is_an_error(tmp_path: Path) -> None:
    file = str(write_legacy(tmp_path / "a.h5", keras_layers()))
    with pytest.raises(UsageError, match="none of its 7 convolutions has the shape"):
        transfer(TransferUNet(3, 8, (5, 7)), file, silent)
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(UsageError, match=r"text\.h5: is not a model of Keras"):
        transfer(TransferUNet(3, 8, CHANNELS), str(tmp_path / "text.h5"), silent)
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(UsageError, match="holds no 3x3 convolution"):
        transfer(TransferUNet(3, 8, CHANNELS), str(tmp_path / "empty.h5"), silent)
    with pytest.raises(UsageError, match="there is no such file"):
        transfer(TransferUNet(3, 8, CHANNELS), str(tmp_path / "missing.h5"), silent)


def test_levels_learn_from_their_epoch_on() -> None:
    how = settings_of(transfer="t.h5", unfreeze=((3, 2), (6, 1)))
    frozen = {epoch: frozen_levels(epoch, how) for epoch in (1, 2, 3, 5, 6, 9)}
    assert frozen == {1: {0, 1, 2}, 2: {0, 1, 2}, 3: {0, 1}, 5: {0, 1}, 6: {0}, 9: {0}}
    at_once = settings_of(transfer="t.h5", freeze_encoder=2)
    assert [len(frozen_levels(epoch, at_once)) for epoch in (1, 2, 3)] == [3, 3, 0]
    assert _unfreeze(None, None, "3:4,6:3") == ((3, 4), (6, 3))  # type: ignore[arg-type]


def test_what_is_frozen_stays_the_same_to_the_bit() -> None:
    """Weights and batch statistics, under weight decay and in training mode."""
    torch.manual_seed(0)
    how = settings_of(transfer="t.h5", unfreeze=((1, 2),), weight_decay=0.1)
    network = build_network(how.network(1, how.n_outputs)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = build_optimiser(network, how)
    freeze(network, 1, how)
    for _ in range(3):
        optimiser.zero_grad(set_to_none=True)
        network.train()
        network(torch.rand(2, 1, 16, 16)).square().mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    for name, value in network.state_dict().items():
        frozen = name.startswith(("encoders.0.", "encoders.1."))
        assert torch.equal(value, before[name]) == frozen, name


def test_the_encoder_has_a_rate_of_its_own() -> None:
    how = settings_of(lr=0.01, encoder_lr=0.001)
    network = build_network(how.network(1, how.n_outputs))
    optimiser = build_optimiser(network, how)
    set_learning_rate(optimiser, 0.005)
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.0005, 0.005])
    sizes = [sum(p.numel() for p in group["params"]) for group in optimiser.param_groups]
    assert sizes[0] == sum(p.numel() for p in network.encoders.parameters())  # type: ignore[union-attr]
    assert sum(sizes) == n_weights(network)


def test_a_run_transfers_freezes_and_resumes(hearts: Path, tmp_path: Path) -> None:
    said: list[str] = []
    first = fit(heart_settings(hearts, epochs=1, channels=CHANNELS), tmp_path / "a", note=silent)
    how = heart_settings(
        hearts, arch="unet-transfer", channels=CHANNELS, transfer=str(tmp_path / "a"),
        unfreeze=((2, 2),), encoder_lr=1e-4,
    )  # fmt: skip
    best = fit(how, tmp_path / "b", note=said.append)
    assert any("level 2, convolution 2 8x8x3x3: taken" in words for words in said)
    assert len(best.hashes["transfer"]) == 64
    spec = export_run(tmp_path / "b", tmp_path / "b.onnx")
    assert (spec.stride, len(spec.classes)) == (4, 4)
    last = load_checkpoint(tmp_path / "b" / "last.pt").weights
    for name in ("encoders.0.0.weight", "encoders.1.4.running_mean"):
        assert torch.equal(last[name], first.weights[name])
    assert not torch.equal(last["encoders.2.3.weight"], first.weights["encoders.2.3.weight"])
    assert fit(how, tmp_path / "b", note=silent, resume=True).scores == best.scores


def test_levels_that_would_learn_after_the_last_epoch_are_said(
    hearts: Path, tmp_path: Path
) -> None:
    fit(heart_settings(hearts, epochs=1, channels=CHANNELS), tmp_path / "a", note=silent)
    how = heart_settings(
        hearts, arch="unet-transfer", channels=CHANNELS, transfer=str(tmp_path / "a"), epochs=1,
        unfreeze=((1, 2), (5, 1)),
    )  # fmt: skip
    said: list[str] = []
    fit(how, tmp_path / "b", note=said.append)
    assert any(words.startswith("--unfreeze 5:1: the run ends after epoch 1") for words in said)


def test_options_of_transfer_that_do_not_fit() -> None:
    for values, words in (
        ({"unfreeze": ((1, 3),), "transfer": "t.h5"}, "names level 3, and the encoder has .* to 2"),
        ({"unfreeze": ((1, 0),)}, "has learnt nothing would be frozen"),
        ({"unfreeze": ((1, 0),), "freeze_encoder": 1, "transfer": "t"}, "both say what is frozen"),
        ({"norm": "none"}, "`norm` is for `arch` unet, and not for unet-transfer"),
        ({"transfer": "a", "init": "b"}, "both say where to start"),
        ({"pretrained": "imagenet"}, "`pretrained` is for `arch` unet-resnet18"),
    ):
        with pytest.raises(ValueError, match=words):
            settings_of(**values)
    with pytest.raises(ValueError, match="`transfer` and `unfreeze` are for `arch` unet-"):
        heart_settings(".", transfer="a")
    with pytest.raises(ValueError, match="are for `arch` unet-resnet18 and unet-transfer"):
        heart_settings(".", encoder_lr=0.1)
