"""Losses of a softmax over classes: weighted cross entropy, soft Dice of the classes that occur.

Logits are (N, K, Y, X), or (N, 1, Y, X) of two classes, where the one is the second class against
the background's 0. Targets are (N, K, Y, X), one of K being 1. Weights are (N, 1, Y, X); a weight
of 0 takes a pixel out of both losses.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from train.losses import PIXELS


def class_logits(logits: Tensor) -> Tensor:
    """Logits of every class along the second axis, of one output or of several."""
    if logits.shape[1] > 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


def class_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy of the softmax, the weighted mean over pixels."""
    entropy = -(target * functional.log_softmax(logits, dim=1)).sum(dim=1, keepdim=True)
    return (entropy * weight).sum() / weight.sum().clamp(min=1e-6)


def class_dice_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """1 - the mean soft Dice of the classes that the batch's truth has, background included.

    A class that is nowhere in the batch would have a Dice near 0 whatever the network says.
    """
    counts = (weight > 0).float()
    found, target = torch.softmax(logits, dim=1) * counts, target * counts
    overlap, truth = (found * target).sum(PIXELS), target.sum(PIXELS)  # (K,)
    dice = (2 * overlap + 1) / (found.sum(PIXELS) + truth + 1)
    occurs = (truth > 0).float()
    return ((1 - dice) * occurs).sum() / occurs.sum().clamp(min=1)
