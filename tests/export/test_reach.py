"""What exported graphs say a pixel can see, against pixels that are poked and against tiles."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch
from torch import nn

from engine.model.graph import receptive_field
from engine.model.spec import PROBABILITIES
from export.onnx import to_onnx
from tests.engine.test_operators import N, assert_radius_and_tiles
from tests.export.networks import settings_of
from train.networks import build_network

NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {},
    "3x3 output layer": {"channels": (2, 4, 4), "head_kernel": 3},
    "bilinear": {"channels": (2, 4, 4), "up": "bilinear"},
    "half": {"shuffle": 2},
    "half, bilinear, 3x3": {"shuffle": 2, "up": "bilinear", "head_kernel": 3},
    "half, one level": {"shuffle": 2, "channels": (4,)},
    "quarter": {"shuffle": 4},
}


def logits_graph(options: dict[str, Any]) -> tuple[onnx.ModelProto, int, int]:
    """A graph of N channels in and out without activation, which would saturate; stride, radius."""
    torch.manual_seed(0)
    network = build_network(settings_of(norm="none", **options).network(N, N))
    for parameter in network.parameters():  # positive: signed weights cancel and hide reach
        nn.init.uniform_(parameter, 0.05, 0.1)
    graph = to_onnx(network, softmax=True)
    assert graph.graph.node[-1].op_type == "Softmax"
    graph.graph.node[-1].CopyFrom(
        onnx.helper.make_node("Identity", graph.graph.node[-1].input, [PROBABILITIES])
    )
    return graph, network.stride, network.receptive_radius


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_the_graph_the_network_and_poked_pixels_agree(options: dict[str, Any]) -> None:
    graph, stride, radius = logits_graph(options)
    field = receptive_field(graph)
    assert (field.stride, field.radius) == (stride, radius), field.reason
    assert_radius_and_tiles(graph)


@pytest.mark.parametrize("factor", [2, 4])
def test_shuffles_are_plain_operators_and_multiply_stride_and_radius(factor: int) -> None:
    graph, *_ = logits_graph({"shuffle": factor})
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("SpaceToDepth") == N  # one for each channel
    assert kinds.count("DepthToSpace") == 1
    assert "Reshape" not in kinds and "Shape" not in kinds
    plain = receptive_field(logits_graph({})[0])
    found = receptive_field(graph)
    assert plain.radius is not None
    assert (found.stride, found.radius) == (factor * plain.stride, factor * plain.radius)
