"""The loss: cross entropy, weighted pixel by pixel, plus a soft Dice over the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def segmentation_loss(logits: Tensor, target: Tensor, weight: Tensor, dice: float) -> Tensor:
    """Weighted binary cross entropy plus `dice` times the soft Dice loss; all (N, 1, Y, X).

    The cross entropy carries the border weights and so cuts neighbours apart; Dice keeps the
    balance between much background and little foreground. A weight of 0 takes a pixel out of both.
    """
    logits = logits.float()
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    cross = (entropy * weight).sum() / weight.sum().clamp(min=1)
    return cross + dice * soft_dice_loss(logits, target, (weight > 0).float())


def soft_dice_loss(logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """1 - Dice of probabilities against the target where `counts` is 1 (Milletari et al. 2016)."""
    probabilities = torch.sigmoid(logits) * counts
    target = target * counts
    overlap = (probabilities * target).sum()
    return 1 - (2 * overlap + 1) / (probabilities.sum() + target.sum() + 1)
