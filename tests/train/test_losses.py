"""The loss: right is cheaper than wrong, and weight 0 means not there."""

from __future__ import annotations

import pytest
import torch

from train.losses import segmentation_loss, soft_dice_loss


def test_right_costs_next_to_nothing_and_wrong_much() -> None:
    target = (torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    weight = torch.ones_like(target)
    right, wrong = 20 * (2 * target - 1), -20 * (2 * target - 1)
    assert segmentation_loss(right, target, weight, 0.5) < 1e-3
    assert segmentation_loss(wrong, target, weight, 0.5) > 10


def test_pixels_of_weight_zero_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1, 6, 6, generator=generator)
    target = (torch.rand(1, 1, 6, 6, generator=generator) > 0.5).float()
    weight = torch.ones(1, 1, 6, 6)
    weight[..., :2] = 0
    other = logits.clone()
    other[..., :2] = 50
    assert segmentation_loss(logits, target, weight, 1) == segmentation_loss(
        other, target, weight, 1
    )


def test_cross_entropy_is_weighted_by_the_map() -> None:
    logits, target = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]])
    logits[..., 1] = 2.0  # wrong by softplus(2)
    weight = torch.tensor([[[[1.0, 3.0]]]])
    expected = (
        torch.log(torch.tensor(2.0)) + 3 * torch.nn.functional.softplus(torch.tensor(2.0))
    ) / 4
    assert segmentation_loss(logits, target, weight, 0).item() == pytest.approx(expected.item())


def test_dice_of_nothing_found_where_nothing_is() -> None:
    nothing = torch.zeros(1, 1, 4, 4)
    loss = soft_dice_loss(torch.full_like(nothing, -30.0), nothing, torch.ones_like(nothing))
    assert loss.item() == pytest.approx(0, abs=1e-6)
