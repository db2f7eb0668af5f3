"""The exported module in torch: folding changes nothing but the number of operators."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from export.graph import ServedNetwork, fold_batch_norm
from tests.export.networks import trained


def test_folding_leaves_no_batch_norm_and_the_same_logits() -> None:
    network = trained(channels=(4, 8, 16))
    folded = fold_batch_norm(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules())  # the original stays
    image = torch.randn(2, 1, 32, 48)
    with torch.inference_mode():
        assert torch.allclose(folded(image), network(image), atol=1e-5)


@pytest.mark.parametrize("n_out", [1, 2, 3])
def test_probabilities_are_of_raw_pixels(n_out: int) -> None:
    network = trained(n_in=2, n_out=n_out)
    served = ServedNetwork(network, softmax=n_out > 2)
    raw = 30_000 + 2000 * torch.rand(1, 2, 16, 16)
    statistics = torch.tensor([[[30_000.0, 32_000.0], [30_500.0, 31_000.0]]])
    low, high = statistics[..., 0, None, None], statistics[..., 1, None, None]
    with torch.inference_mode():
        found = served(raw, statistics)
        logits = network((raw - low) / (high - low))
    wanted = torch.sigmoid(logits) if n_out < 3 else torch.softmax(logits, 1)
    assert torch.allclose(found, wanted, atol=1e-5)
    if n_out > 2:
        assert torch.allclose(found.sum(1), torch.ones(1, 16, 16), atol=1e-5)
