"""The module that is exported: normalise, network, activation. What the engine runs, in torch."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from train.networks.normalise import normalise


class ServedNetwork(nn.Module):
    """Raw pixels and the frame's statistics in, class probabilities out.

    image         float32 (N, C, H, W), H and W multiples of the network's stride
    statistics    float32 (N, C, 2), low and high of the whole frame
    -> probabilities  float32 (N, K, H, W): sigmoid of foreground, or of foreground and core, or
                      softmax over the classes
    """

    def __init__(self, network: nn.Module, *, softmax: bool) -> None:
        super().__init__()
        self.network = fold_batch_norm(network)
        self.softmax = softmax
        self.eval()

    def forward(self, image: Tensor, statistics: Tensor) -> Tensor:
        """Probabilities of one batch."""
        logits = self.network(normalise(image, statistics))
        return torch.softmax(logits, dim=1) if self.softmax else torch.sigmoid(logits)


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy in eval mode whose batch normalisations are part of the convolutions before them.

    Folded in float64, so that the copy agrees with the original to float32 rounding. A module's
    children are taken to run in their order: so they do in sequences and in a ResNet's blocks.
    """
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        for (name, convolution), (following, norm) in pairwise(list(module.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(convolution.double(), norm.double()).float()
                setattr(module, name, fused)
                setattr(module, following, nn.Identity())
    return folded
