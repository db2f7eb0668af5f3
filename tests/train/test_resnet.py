"""The U-Net on a ResNet-18: sizes and reach, weights from ImageNet, and an encoder kept frozen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet34

from engine.errors import UsageError
from tests.train.data import write_pairs
from train.checkpoint import load_checkpoint
from train.curves import Epoch
from train.fit import fit
from train.networks import ResNetUNet, n_weights
from train.networks.blocks import Up
from train.networks.pretrained import WEIGHTS, for_channels, load_pretrained
from train.networks.resnet import DEVIATION, MEAN
from train.settings import TrainSettings

SMALL = (2, 2, 2, 4, 4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What torchvision's weights file holds, but for the numbers."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    network = resnet18()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
    torch.save(network.state_dict(), path)
    return path


def test_weights_stride_and_reach_of_the_full_network() -> None:
    network = ResNetUNet()
    assert n_weights(network) == 14_235_009
    assert n_weights(resnet18()) - n_weights(resnet18().fc) == 11_176_512  # type: ignore[arg-type]
    assert (network.stride, network.receptive_radius) == (32, 281)


@pytest.mark.parametrize("size", [(64, 96), (65, 96), (37, 70)])
def test_logits_lie_on_the_pixels_of_the_image(size: tuple[int, int]) -> None:
    network = ResNetUNet(2, 3, SMALL).eval()
    assert network(torch.rand(2, 2, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("up", ["transposed", "bilinear"])
def test_receptive_radius_is_where_the_gradient_ends(up: Up) -> None:
    network = ResNetUNet(1, 1, SMALL, up=up).eval()
    # Max pooling passes the gradient of one pixel only; the mean of the window is the same reach.
    network.encoder.maxpool = nn.AvgPool2d(3, stride=2, padding=1)
    for parameter in network.parameters():  # positive: signed weights cancel and hide reach
        nn.init.uniform_(parameter, 0.5, 1.0)
    image = 1 + torch.rand(1, 1, 32, 30 * 32, dtype=torch.float64)
    image.requires_grad_()
    start = 15 * 32
    network.double()(image)[..., start : start + 32].sum().backward()
    assert image.grad is not None
    reached = image.grad[0, 0].any(dim=0).nonzero()
    reach = max(start - int(reached.min()), int(reached.max()) - (start + 31))
    assert reach == network.receptive_radius


def test_one_channel_gets_the_sum_of_three_and_n_get_3_nths() -> None:
    rgb = torch.randn(64, 3, 7, 7)
    assert torch.equal(for_channels(rgb, 1), rgb.sum(1, keepdim=True))
    assert torch.equal(for_channels(rgb, 3), rgb)
    five = for_channels(rgb, 5)
    assert torch.equal(five, torch.cat([rgb, rgb[:, :2]], dim=1) * 0.6)
    assert torch.equal(for_channels(rgb, 2), rgb[:, :2] * 1.5)


def test_a_grey_image_gives_the_features_of_three_equal_channels(weights: Path) -> None:
    network, whole = ResNetUNet(1, 1, SMALL).eval(), resnet18().eval()
    load_pretrained(network, str(weights))
    whole.load_state_dict(torch.load(weights, weights_only=True))
    image = (torch.rand(1, 1, 64, 64) - MEAN) / DEVIATION
    deep: list[torch.Tensor] = []
    for encoder in (network.encoder, whole):
        encoder.layer4.register_forward_hook(lambda _, __, output: deep.append(output))
    with torch.inference_mode():
        network(image * DEVIATION + MEAN)
        whole(image.expand(1, 3, 64, 64))
    assert deep[0].std() > 0.01
    assert torch.allclose(deep[0], deep[1], atol=1e-4)


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where torchvision keeps what it downloads; the download fails."""

    def fail(*_: Any, **__: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    yield tmp_path


def test_imagenet_s_weights_are_torchvision_s_file(weights: Path, torch_home: Path) -> None:
    folder = torch_home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / WEIGHTS.url.rpartition("/")[2]).write_bytes(weights.read_bytes())
    network, same = ResNetUNet(3, 1, SMALL), ResNetUNet(3, 1, SMALL)
    assert load_pretrained(network, "imagenet") == load_pretrained(same, str(weights))
    state = torch.load(weights, weights_only=True)
    assert torch.equal(network.encoder.conv1.weight, state["conv1.weight"])
    assert torch.equal(same.encoder.layer4[1].bn2.bias, state["layer4.1.bn2.bias"])


def test_a_download_that_fails_says_the_way_out(torch_home: Path) -> None:
    del torch_home
    with pytest.raises(UsageError) as error:
        load_pretrained(ResNetUNet(1, 1, SMALL), "imagenet")
    assert "\n" not in str(error.value)
    for words in (WEIGHTS.url, "Name or service not known", "give --pretrained FILE"):
        assert words in str(error.value)


def test_files_of_another_network_are_refused(tmp_path: Path) -> None:
    network = ResNetUNet(1, 1, SMALL)
    with pytest.raises(UsageError, match="there is no such file"):
        load_pretrained(network, str(tmp_path / "nowhere.pth"))
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"conv1.weight": 3}, tmp_path / "number.pth")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "small.pth")
    torch.save({"conv1.weight": torch.zeros(1, dtype=torch.bfloat16)}, tmp_path / "flat.pth")
    torch.save(resnet34().state_dict(), tmp_path / "deeper.pth")
    torch.save(nn.Module(), tmp_path / "code.pth")
    for name in ("text", "number", "small", "flat", "deeper", "code"):
        with pytest.raises(UsageError, match="holds no state dict of torchvision's resnet18"):
            load_pretrained(network, str(tmp_path / f"{name}.pth"))


def test_a_frozen_encoder_keeps_weights_and_batch_statistics(tmp_path: Path, weights: Path) -> None:
    """Frozen for one epoch of two, and interrupted between them; then the file is not needed."""
    copy = tmp_path / "copy.pth"
    copy.write_bytes(weights.read_bytes())
    settings = TrainSettings(
        data=str(write_pairs(tmp_path / "data", [f"{i}.tif" for i in range(4)])),
        layout="pairs", arch="unet-resnet18", channels=SMALL, patch=32, batch=2, workers=0,
        epochs=2, steps_per_epoch=2, device="cpu", precision="fp32", val_fraction=0.3,
        pretrained=str(copy), freeze_encoder=1,
    )  # fmt: skip

    def interrupt(_: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(settings, tmp_path / "run", note=lambda _: None, report=interrupt)
    state = torch.load(weights, weights_only=True)
    first = load_checkpoint(tmp_path / "run" / "last.pt")
    kept = [name for name in state if not name.startswith(("fc.", "conv1."))]
    assert "layer1.0.bn1.running_mean" in kept
    assert all(torch.equal(first.weights[f"encoder.{name}"], state[name]) for name in kept)
    assert int(first.weights["decoders.0.1.num_batches_tracked"]) == 2
    assert len(first.hashes["pretrained"]) == 64

    copy.unlink()
    fit(settings, tmp_path / "run", note=lambda _: None, resume=True)
    last = load_checkpoint(tmp_path / "run" / "last.pt")
    changed = [n for n in kept if not torch.equal(last.weights[f"encoder.{n}"], state[n])]
    assert {"layer4.1.conv2.weight", "layer1.0.bn1.running_mean"} <= set(changed)
    assert last.hashes["pretrained"] == first.hashes["pretrained"]
