"""Fine-tuning for int8: weights learn to give, rounded, what the network in float32 gives.

No truth is needed, so that the frames which calibrate teach as well. The network in float32 is the
teacher (knowledge distillation, Hinton et al. 2015, https://arxiv.org/abs/1503.02531).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.inference.agreement import Look
from engine.inference.device_check import real_tile
from engine.model.statistics import normalisable
from export.simulate import GraphNetwork, Weights, weights_of

log = logging.getLogger("stackseg")

PATCH, BATCH = 192, 2  # px a side, at most; patches a step
RATE = 5e-5  # of Adam, at first; down to 0 along a cosine


def fine_tuned(
    graph: onnx.ModelProto, quantised: onnx.ModelProto, looks: Sequence[Look],
    *, largest: int, steps: int, seed: int,
) -> Weights:  # fmt: skip
    """Weights of `graph`, in float32, which `quantised` is to have.

    `largest` is the greatest number that a channel's weights become, see `GraphNetwork`.
    """
    weights = weights_of(graph.graph)
    teacher = GraphNetwork(graph.graph, weights, largest)
    student = GraphNetwork(quantised.graph, weights, largest)
    softmax = any(node.op_type == "Softmax" for node in graph.graph.node)
    optimiser = torch.optim.Adam(student.parameters(), lr=RATE)
    patches, losses = _patches(looks, seed), []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        image, statistics = next(patches)
        with torch.no_grad():
            wanted = teacher(image, statistics)
        loss = _loss(student(image, statistics), wanted, softmax)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            log.info(
                "fine-tuning: step %d of %d, loss %.3g", step + 1, steps, np.mean(losses[-50:])
            )
    return student.weights()


def _loss(found: Tensor, wanted: Tensor, softmax: bool) -> Tensor:
    """How far probabilities are from those that are wanted: the divergence of Kullback-Leibler."""
    if softmax:
        target = F.log_softmax(wanted, dim=1)
        return F.kl_div(F.log_softmax(found, dim=1), target, log_target=True) * found.shape[1]
    target = torch.sigmoid(wanted)
    least = F.binary_cross_entropy_with_logits(wanted, target)  # what agreement leaves
    return F.binary_cross_entropy_with_logits(found, target) - least


def _patches(looks: Sequence[Look], seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of raw pixels (N, C, Y, X), mirrored and turned, and their frames' statistics."""
    random = np.random.default_rng(seed)
    stride = looks[0].tiling.stride
    frames = [real_tile(look.pixels, stride, 10**6) for look in looks]  # padded to the stride
    side = min(PATCH, *(n for frame in frames for n in frame.shape[1:])) // stride * stride
    while True:
        images, statistics = [], []
        for number in random.integers(len(looks), size=BATCH):
            frame = frames[number]
            y, x = (int(random.integers(n - side + 1)) for n in frame.shape[1:])
            patch = np.rot90(frame[:, y : y + side, x : x + side], int(random.integers(4)), (1, 2))
            patch = patch[:, :, ::-1] if random.integers(2) else patch
            images.append(patch.astype(np.float32))
            statistics.append(normalisable(looks[number].statistics))
        yield torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(statistics))
