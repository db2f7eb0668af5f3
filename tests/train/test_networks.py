"""The U-Net: sizes, what it can see, and how it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from train.networks import NetworkArgs, UNet, build_network
from train.networks.normalise import normalise


@pytest.mark.parametrize("channels", [(4,), (4, 8), (3, 5, 7), (2, 4, 6, 8)])
@pytest.mark.parametrize(("n_in", "n_out"), [(1, 1), (3, 4)])
def test_probabilities_lie_on_the_pixels_of_the_image(
    channels: tuple[int, ...], n_in: int, n_out: int
) -> None:
    network = UNet(n_in, n_out, channels).eval()
    stride = 2 ** (len(channels) - 1)
    for height, width in ((stride, stride), (3 * stride, 5 * stride)):
        assert network(torch.rand(2, n_in, height, width)).shape == (2, n_out, height, width)


def test_other_sizes_are_refused_with_the_size_to_use() -> None:
    with pytest.raises(ValueError, match="multiples of 4 px, not 16x17; pad to 16x20"):
        UNet(1, 1, (2, 4, 8))(torch.rand(1, 1, 16, 17))
    with pytest.raises(ValueError, match="takes 1 channels, not 2"):
        UNet(1, 1, (2, 4))(torch.rand(1, 2, 16, 16))


@pytest.mark.parametrize(("channels", "radius"), [((2,), 2), ((2, 2), 8), ((2, 2, 2), 22)])
def test_receptive_radius_is_where_the_gradient_ends(
    channels: tuple[int, ...], radius: int
) -> None:
    network = UNet(1, 1, channels).eval()
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


def test_the_bundled_size_sees_46_px_and_has_half_a_million_weights() -> None:
    network = UNet(1, 1, (16, 32, 64, 128))
    assert (network.stride, network.receptive_radius) == (8, 46)
    assert sum(p.numel() for p in network.parameters()) == 482_449


def test_args_survive_json() -> None:
    args = NetworkArgs("unet", 2, 3, (4, 8))
    assert NetworkArgs.from_json(args.as_json()) == args
    assert isinstance(build_network(args), UNet)


def test_two_outputs_are_refused() -> None:
    with pytest.raises(ValueError, match="use n_out 1, or 3"):
        build_network(NetworkArgs("unet", 1, 2, (4, 8)))


def test_normalise_goes_channel_by_channel() -> None:
    image = torch.tensor([[[[10.0, 20.0]], [[0.0, 4.0]]]])  # (1, 2, 1, 2)
    statistics = torch.tensor([[[10.0, 20.0], [0.0, 2.0]]])
    assert normalise(image, statistics).tolist() == [[[[0.0, 1.0]], [[0.0, 2.0]]]]
