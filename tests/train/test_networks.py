"""The networks: sizes, weights, what they can see, and how they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from engine.inference.tiles import pad_to
from train.networks import Network, NetworkArgs, Shuffled, UNet, build_network, n_weights
from train.networks.normalise import normalise
from train.presets import PRESETS
from train.settings import TrainSettings


@pytest.mark.parametrize("channels", [(4,), (4, 8), (3, 5, 7), (2, 4, 6, 8)])
@pytest.mark.parametrize(("n_in", "n_out"), [(1, 1), (3, 4)])
def test_probabilities_lie_on_the_pixels_of_the_image(
    channels: tuple[int, ...], n_in: int, n_out: int
) -> None:
    network = UNet(n_in, n_out, channels).eval()
    stride = 2 ** (len(channels) - 1)
    for height, width in ((stride, stride), (3 * stride, 5 * stride)):
        assert network(torch.rand(2, n_in, height, width)).shape == (2, n_out, height, width)


@pytest.mark.parametrize("size", [(16, 17), (18, 16), (21, 30), (1, 1), (3, 2)])
@pytest.mark.parametrize("args", [
    NetworkArgs("unet", 2, 3, (2, 4, 8)),
    NetworkArgs("unet", 2, 3, (2, 4), shuffle=2),
], ids=["unet", "shuffled"])  # fmt: skip
def test_any_size_is_computed_as_the_engine_does(args: NetworkArgs, size: tuple[int, int]) -> None:
    """18 is odd after one pooling, and 16 is not: they must not be taken for each other."""
    network, image = build_network(args).eval(), torch.rand(1, 2, *size)
    height, width = size
    padded = pad_to(image[0].numpy(), (-(-height // 4) * 4, -(-width // 4) * 4))
    found, wanted = network(image), network(torch.from_numpy(padded)[None])
    assert found.shape == (1, 3, height, width)
    assert torch.equal(found, wanted[:, :, :height, :width])


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="takes 1 channels, not 2"):
        UNet(1, 1, (2, 4))(torch.rand(1, 2, 16, 16))


@pytest.mark.parametrize(
    ("channels", "options", "radius"),
    [
        ((2,), {}, 2),
        ((2, 2), {}, 8),
        ((2, 2, 2), {}, 22),
        ((2,), {"head_kernel": 3}, 3),
        ((2, 2, 2), {"head_kernel": 3}, 22),
        ((2, 2, 2), {"norm": "none", "dropout": 0.5}, 22),
        ((2, 2, 2), {"up": "bilinear"}, 26),
        ((2, 2, 2), {"up": "bilinear", "head_kernel": 3}, 26),
    ],
)
def test_receptive_radius_is_where_the_gradient_ends(
    channels: tuple[int, ...], options: dict[str, Any], radius: int
) -> None:
    network = UNet(1, 1, channels, **options).eval()
    for parameter in network.parameters():  # positive: signed weights cancel and hide reach
        nn.init.uniform_(parameter, 0.5, 1.0)
    stride, side = network.stride, 24 * network.stride
    image = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    start = side // 2 // stride * stride
    # Max pooling passes the gradient of one pixel only; the mean of the window is the same reach.
    network = _with_average_pooling(network).double()
    network(image)[..., start : start + stride, start : start + stride].sum().backward()
    seen = image.grad[0, 0].nonzero()
    reach = max(start - int(seen.min()), int(seen.max()) - (start + stride - 1))
    assert reach == network.receptive_radius == radius


def _with_average_pooling(network: UNet) -> UNet:
    network.pool = nn.AvgPool2d(2)  # type: ignore[assignment]
    return network


@pytest.mark.parametrize(
    ("preset", "shuffle", "weights", "stride", "radius"),
    [
        ("nuclei", 1, 482_449, 8, 46),
        ("nuclei", 2, 482_932, 16, 92),
        ("nuclei", 4, 484_864, 32, 184),
        ("notebook", 1, 483_281, 8, 46),
        ("ronneberger", 1, 31_030_593, 16, 94),
    ],
)
def test_presets_have_the_weights_of_their_figures(
    preset: str, shuffle: int, weights: int, stride: int, radius: int
) -> None:
    settings = TrainSettings(data="d", layout="pairs", **{**PRESETS[preset], "shuffle": shuffle})
    network = build_network(settings.network(1, 1))
    assert n_weights(network) == weights
    assert (network.stride, network.receptive_radius) == (stride, radius)


@pytest.mark.parametrize("factor", [2, 4])
def test_a_shuffle_takes_its_share_of_the_arithmetic(factor: int) -> None:
    """A quarter, and a sixteenth: the first and the last layer are small in either."""
    flops = []
    for shuffle in (1, factor):
        network = build_network(NetworkArgs("unet", 1, 1, (16, 32, 64, 128), shuffle=shuffle))
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            assert network(torch.rand(1, 1, 64, 64)).shape == (1, 1, 64, 64)
        flops.append(counter.get_total_flops())
    assert flops[1] == pytest.approx(flops[0] / factor**2, rel=0.1)


def test_a_shuffle_undoes_itself() -> None:
    class Same(Network):
        def logits(self, image: torch.Tensor) -> torch.Tensor:
            return image

    image = torch.rand(2, 3, 8, 12)
    assert torch.equal(Shuffled(Same(12, 1), 2)(image), image)
    with pytest.raises(ValueError, match="a multiple of 4 channels, not 3"):
        Shuffled(Same(3, 1), 2)


def test_without_normalisation_signals_keep_their_strength() -> None:
    torch.manual_seed(0)
    image = torch.randn(4, 1, 64, 64)
    for channels in ((16, 32), (16, 32, 64, 128, 256)):
        with torch.inference_mode():
            spread = float(UNet(1, 1, channels, norm="none").eval()(image).std())
        assert 0.1 < spread < 10


def test_dropout_is_at_the_end_of_the_contracting_path_and_in_training_alone() -> None:
    torch.manual_seed(0)
    network, image = UNet(1, 1, (4, 8), norm="none", dropout=0.5), torch.rand(1, 1, 32, 32)
    bottom: list[torch.Tensor] = []
    network.ups[0].register_forward_pre_hook(lambda _, inputs: bottom.append(inputs[0]))
    for mode in (True, False):
        network.train(mode)(image)
    dropped = bottom[0] != 2 * bottom[1]  # what is kept is doubled
    assert torch.equal(bottom[0][dropped], torch.zeros(int(dropped.sum())))
    assert 0.3 < dropped[bottom[1] > 0].float().mean() < 0.7


def test_interpolation_and_a_1x1_convolution_change_places() -> None:
    network, x = UNet(1, 1, (4, 8), up="bilinear"), torch.rand(1, 8, 6, 6)
    convolution, interpolation = network.ups[0]
    assert torch.allclose(network.ups[0](x), convolution(interpolation(x)), atol=1e-6)


def test_args_survive_json() -> None:
    args = NetworkArgs("unet", 2, 3, (4, 8), norm="none", up="bilinear", head_kernel=3)
    assert NetworkArgs.from_json(args.as_json()) == args
    assert isinstance(build_network(args), UNet)


def test_args_of_checkpoints_from_before_there_were_options() -> None:
    values = {"arch": "unet", "n_in": 1, "n_out": 1, "channels": [16, 32, 64, 128]}
    network = build_network(NetworkArgs.from_json(values))
    assert n_weights(network) == 482_449
    assert "decoders.0.4.running_var" in network.state_dict()


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="no architecture 'vnet'; use unet, "):
        build_network(NetworkArgs("vnet", 1, 1, (4, 8)))


def test_normalise_goes_channel_by_channel() -> None:
    image = torch.tensor([[[[10.0, 20.0]], [[0.0, 4.0]]]])  # (1, 2, 1, 2)
    statistics = torch.tensor([[[10.0, 20.0], [0.0, 2.0]]])
    assert normalise(image, statistics).tolist() == [[[[0.0, 1.0]], [[0.0, 2.0]]]]
