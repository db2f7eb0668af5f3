"""float16 between the first convolution and the last, float32 around it.

ONNX Runtime's own converter casts the inputs of a graph as well, whatever it is told to leave
alone: there raw pixels from 65,520 on become infinite.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ModelError
from export.inside import inside

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its inside in float16; ModelError where a weight is too large for that."""
    graph = model.graph
    lowered = {node.name for node in inside(model)}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    made = {name for node in graph.node if node.name in lowered for name in node.output}
    pixels = _computed(graph) - made
    nodes: list[onnx.NodeProto] = []
    cast: dict[str, str] = {}  # tensors of float32, and what they are in float16
    for node in graph.node:
        if node.name not in lowered:
            _read_as_float(node, made, cast, nodes)
            nodes.append(node)
            continue
        for position, name in enumerate(node.input):
            if node.op_type == "Resize" and position:
                continue  # scales are float32 whatever is resized
            if name in weights and weights[name].data_type == FLOAT:
                if name not in cast:
                    cast[name] = f"{name}_half"
                    graph.initializer.append(_half(weights[name], cast[name]))
            elif name in pixels and name not in cast:
                cast[name] = f"{name}_half"
                nodes.append(helper.make_node("Cast", [name], [cast[name]], to=HALF))
            node.input[position] = cast.get(name, name)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    return model


def _computed(graph: onnx.GraphProto) -> set[str]:
    """Tensors that depend on what comes into the graph; others are constants."""
    found = {value.name for value in graph.input}
    for node in graph.node:
        if found & set(node.input):
            found |= set(node.output)
    return found


def _read_as_float(
    node: onnx.NodeProto, made: set[str], cast: dict[str, str], nodes: list[onnx.NodeProto]
) -> None:
    """Have a node of float32 read what is in float16 through a Cast."""
    for position, name in enumerate(node.input):
        if name in made:
            if name not in cast:
                cast[name] = f"{name}_float"
                nodes.append(helper.make_node("Cast", [name], [cast[name]], to=FLOAT))
            node.input[position] = cast[name]


def _half(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    with np.errstate(over="ignore"):
        values = numpy_helper.to_array(tensor).astype(np.float16)
    if not np.isfinite(values).all():
        raise ModelError(f"the weight {tensor.name!r} is too large for float16; keep it in fp32")
    return numpy_helper.from_array(values, name)
