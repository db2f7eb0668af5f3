"""The part of a graph that may compute in less than float32."""

from __future__ import annotations

import onnx

from engine.model.file import ModelFile

CONVOLUTIONS = ("Conv", "ConvTranspose")


def named(model: ModelFile) -> onnx.ModelProto:
    """A model's graph, in which every node has a name: that of what it gives."""
    graph = model.parse()
    for node in graph.graph.node:
        node.name = node.output[0]
    return graph


def convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions, in the order of the graph."""
    return [node.name for node in model.graph.node if node.op_type in CONVOLUTIONS]


def inside(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The convolutions and what depends on one, up to the last of them.

    What comes before normalises; of what comes after, an error would be one of the probabilities.
    """
    nodes = list(model.graph.node)
    heavy = [n for n, node in enumerate(nodes) if node.op_type in CONVOLUTIONS]
    found: list[onnx.NodeProto] = []
    reached: set[str] = set()
    for node in nodes[: heavy[-1] + 1 if heavy else 0]:
        if node.op_type in CONVOLUTIONS or reached & set(node.input):
            found.append(node)
            reached |= set(node.output)
    return found
