"""The losses: right is cheaper than wrong, weight 0 means not there, outputs count alike."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from train.losses import cross_entropy, segmentation_loss, soft_dice_loss
from train.settings import TrainSettings

LOSSES = ("bce", "dice", "bce+dice")


def settings(**values: Any) -> TrainSettings:
    return TrainSettings.model_validate({"data": ".", "layout": "pairs"} | values)


def some(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, a target and weights in 1 .. 11."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator)
    target = (torch.rand(shape, generator=generator) > 0.7).float()
    return logits, target, 1 + 10 * torch.rand(shape, generator=generator)


@pytest.mark.parametrize("loss", LOSSES)
def test_right_costs_next_to_nothing_and_wrong_much(loss: str) -> None:
    _, target, weight = some(2, 2, 8, 8)
    right, wrong = 20 * (2 * target - 1), -20 * (2 * target - 1)
    assert segmentation_loss(right, target, weight, settings(loss=loss)) < 1e-3
    assert segmentation_loss(wrong, target, weight, settings(loss=loss)) > 0.9


@pytest.mark.parametrize("loss", LOSSES)
def test_pixels_of_weight_zero_change_nothing(loss: str) -> None:
    logits, target, weight = some(1, 2, 6, 6)
    weight[:, 1, :, :2] = 0
    other = logits.clone()
    other[:, 1, :, :2] = 50
    how = settings(loss=loss, foreground_weight=3)
    assert segmentation_loss(logits, target, weight, how) == segmentation_loss(
        other, target, weight, how
    )


def test_cross_entropy_is_weighted_by_the_map() -> None:
    logits, target = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]])
    logits[..., 1] = 2.0  # wrong by softplus(2)
    weight = torch.tensor([[[[1.0, 3.0]]]])
    right, wrong = math.log(2), math.log(1 + math.exp(2))
    assert cross_entropy(logits, target, weight).item() == pytest.approx((right + 3 * wrong) / 4)
    # Foreground twice as heavy: the pixel that is to be found counts 2 of then 5 parts.
    heavier = cross_entropy(logits, target, weight, foreground_weight=2).item()
    assert heavier == pytest.approx((2 * right + 3 * wrong) / 5)


def test_dice_by_hand() -> None:
    """Probabilities of 1/2 over 4 px, 2 of them to be found: 1 - (2 * 1 + 1) / (2 + 2 + 1)."""
    target = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
    half, ones = torch.zeros_like(target), torch.ones_like(target)
    assert soft_dice_loss(half, target, ones).item() == pytest.approx(1 - 3 / 5)
    assert soft_dice_loss(half, target, 7 * ones).item() == pytest.approx(1 - 3 / 5)


def test_dice_of_nothing_found_where_nothing_is() -> None:
    nothing = torch.zeros(1, 1, 4, 4)
    loss = soft_dice_loss(torch.full_like(nothing, -30.0), nothing, torch.ones_like(nothing))
    assert loss.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_each_output_has_a_loss_of_its_own_and_counts_alike(loss: str) -> None:
    first, second = some(3, 1, 8, 8), some(3, 1, 8, 8, seed=1)
    first = (first[0], first[1], 20 * first[2])  # heavy weights do not make it count for more
    how = settings(loss=loss)
    both = (torch.cat(pair, dim=1) for pair in zip(first, second, strict=True))
    alone = [segmentation_loss(*one, how).item() for one in (first, second)]
    assert segmentation_loss(*both, how).item() == pytest.approx(sum(alone) / 2, rel=1e-6)


def test_the_sum_is_of_both() -> None:
    one = some(2, 1, 8, 8)
    parts = [segmentation_loss(*one, settings(loss=name)).item() for name in ("bce", "dice")]
    both = segmentation_loss(*one, settings(loss="bce+dice", dice=0.3)).item()
    assert both == pytest.approx(parts[0] + 0.3 * parts[1], rel=1e-6)
