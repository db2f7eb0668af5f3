"""Decides in the graph what becomes of each pixel: two bytes come back instead of four an output.

    plane 0   class of the pixel; of a binary model 1 in the foreground, and CORE more in cores;
              NOT_FINITE where an output is NaN or infinite
    plane 1   probability of that class (of a binary model that of the foreground) in 1/255

Thresholds are compared in float32, as `engine.labels.classes` does: what comes back is what the
host would decide from the probabilities themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.model.spec import PROBABILITIES

CORE = 2  # bit of a pixel in a core
NOT_FINITE = 255
PLANES = 2
MAX_CLASSES = 255  # with NOT_FINITE a byte holds no more
_FLOATS = f"{PROBABILITIES}_as_float"


@dataclass(frozen=True)
class Decision:
    """How a pixel is decided. Plain data, of a plan."""

    n_classes: int  # outputs that tell classes; 1: that of the foreground
    threshold: float  # of that one
    core_threshold: float | None = None  # of the output behind it; None: cores are not asked for


def decide(model: onnx.ModelProto, decision: Decision) -> None:
    """Change `model` so that its output is uint8 (N, PLANES, H, W), decided as above."""
    graph = model.graph
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [_FLOATS if name == PROBABILITIES else name for name in names]
    tail = _Tail(graph, {one.domain: one.version for one in model.opset_import}[""])
    of_classes = range(decision.n_classes)
    classes = _FLOATS if _width(graph) == decision.n_classes else tail.channels(of_classes)
    if decision.n_classes == 1:
        chosen = tail.reaches(classes, decision.threshold)
        certainty = classes
    else:
        best = tail.node("ArgMax", classes, axis=1, keepdims=1)
        chosen = tail.node("Cast", best, to=TensorProto.FLOAT)
        certainty = tail.over_channels("ReduceMax", classes)
    if decision.core_threshold is not None:
        core = tail.reaches(tail.channels([decision.n_classes]), decision.core_threshold)
        chosen = tail.node("Add", chosen, tail.node("Mul", core, tail.constant(CORE)))
    finite = tail.node("LessOrEqual", tail.node("Abs", _FLOATS), tail.constant(_LARGEST))
    finite = tail.over_channels("ReduceMin", tail.node("Cast", finite, to=TensorProto.FLOAT))
    finite = tail.node("Cast", finite, to=TensorProto.BOOL)
    chosen = tail.node("Where", finite, chosen, tail.constant(NOT_FINITE))
    certainty = tail.node("Clip", certainty, tail.constant(0), tail.constant(1))
    certainty = tail.node("Round", tail.node("Mul", certainty, tail.constant(255)))
    both = tail.node("Concat", chosen, certainty, axis=1)
    tail.node("Cast", both, to=TensorProto.UINT8, output=PROBABILITIES)
    for value in graph.output:
        if value.name == PROBABILITIES:
            batch, _, height, width = (_size(d) for d in value.type.tensor_type.shape.dim)
            size = [batch, PLANES, height, width]
            value.CopyFrom(helper.make_tensor_value_info(PROBABILITIES, TensorProto.UINT8, size))


_LARGEST = float(np.finfo(np.float32).max)


def _size(dim: Any) -> Any:
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None


def _width(graph: onnx.GraphProto) -> int:
    value = next(one for one in graph.output if one.name == PROBABILITIES)
    return int(value.type.tensor_type.shape.dim[1].dim_value)


class _Tail:
    """Nodes that are added behind a graph, with names that it does not have."""

    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        self._graph, self._opset, self._count = graph, opset, 0

    def _name(self) -> str:
        self._count += 1
        return f"{PROBABILITIES}_decided_{self._count}"

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Name of the output of one more node."""
        output = output or self._name()
        self._graph.node.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, value: Any, kind: Any = np.float32) -> str:
        """A number, or several, as a tensor."""
        name = self._name()
        tensor = numpy_helper.from_array(np.asarray(value, dtype=kind), name)
        self._graph.initializer.append(tensor)
        return name

    def channels(self, numbers: Any) -> str:
        """Some of the outputs, float32 (N, k, H, W)."""
        return self.node("Gather", _FLOATS, self.constant(list(numbers), np.int64), axis=1)

    def reaches(self, outputs: str, threshold: float) -> str:
        """1 where an output reaches a threshold, else 0; float32."""
        reached = self.node("GreaterOrEqual", outputs, self.constant(threshold))
        return self.node("Cast", reached, to=TensorProto.FLOAT)

    def over_channels(self, kind: str, values: str) -> str:
        """A reduction of (N, K, H, W) to (N, 1, H, W)."""
        if self._opset < 18:
            return self.node(kind, values, axes=[1], keepdims=1)
        return self.node(kind, values, self.constant([1], np.int64), keepdims=1)
