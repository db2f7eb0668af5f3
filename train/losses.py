"""Losses of sigmoid outputs, by name: cross entropy weighted pixel by pixel, soft Dice, their sum.

All take logits, target and weight of shape (N, K, Y, X): K outputs, each a question of its own with
targets of 0 and 1. Each output has a loss of its own, and the mean over outputs is taken: one with
few pixels or small weights counts as much as the others. A weight of 0 takes a pixel out of both
losses.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from train.settings import TrainSettings

PIXELS = (0, 2, 3)  # axes of (N, K, Y, X) that one output's loss sums over


def segmentation_loss(
    logits: Tensor, target: Tensor, weight: Tensor, settings: TrainSettings
) -> Tensor:
    """The loss that `settings.loss` names, a scalar in fp32.

    The cross entropy carries the border weights and so cuts neighbours apart; Dice keeps the
    balance between much background and little foreground.
    """
    logits = logits.float()
    if settings.loss == "dice":
        return soft_dice_loss(logits, target, weight)
    cross = cross_entropy(logits, target, weight, settings.foreground_weight)
    if settings.loss == "bce":
        return cross
    return cross + settings.dice * soft_dice_loss(logits, target, weight)


def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor, foreground_weight: float = 1.0
) -> Tensor:
    """Binary cross entropy, the weighted mean over pixels.

    Pixels whose target is 1 count `foreground_weight` times as much (w_c of Ronneberger et al.).
    """
    weight = weight * (1 + (foreground_weight - 1) * target)
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return ((entropy * weight).sum(PIXELS) / weight.sum(PIXELS).clamp(min=1)).mean()


def soft_dice_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """1 - Dice of probabilities and target over the batch's pixels (Milletari et al. 2016,
    https://arxiv.org/abs/1606.04797). Of the weights it matters only whether they are 0.
    """
    counts = (weight > 0).float()
    probabilities = torch.sigmoid(logits) * counts
    target = target * counts
    overlap = (probabilities * target).sum(PIXELS)
    dice = (2 * overlap + 1) / (probabilities.sum(PIXELS) + target.sum(PIXELS) + 1)
    return (1 - dice).mean()
