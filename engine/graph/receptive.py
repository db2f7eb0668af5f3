"""Stride and receptive field, read off an ONNX graph by interval arithmetic.

Ask which input pixels one stride-aligned window of output pixels depends on, and walk the graph
backwards: each operator turns an interval of output indices into the interval of input indices
that it reads. What sticks out of the window is the radius. This is exact for the alignment that
tiles have (Araujo et al., "Computing Receptive Fields of Convolutional Neural Networks", Distill
2019, do the same with closed formulas for single-path networks).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import onnx
from onnx import numpy_helper

from engine.errors import ModelError
from engine.model import IMAGE, PROBABILITIES

# fmt: off
POINTWISE = frozenset([
    "Abs", "Add", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Div", "Dropout", "Elu",
    "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log",
    "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Selu", "Sigmoid",
    "Softmax", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Where",
])
SLIDING = frozenset(["Conv", "MaxPool", "AveragePool"])
WHOLE_FRAME = frozenset([
    "InstanceNormalization", "GroupNormalization", "LayerNormalization", "GlobalAveragePool",
    "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin",
    "MeanVarianceNormalization",
])
# fmt: on
# Resize grids on which an output pixel's place does not depend on the size of the image.
ALIGNED_GRIDS = frozenset(["half_pixel", "pytorch_half_pixel", "asymmetric"])

Interval = tuple[int, int]  # inclusive at both ends


@dataclass(frozen=True)
class ReceptiveField:
    """What one output pixel can see, along the worse of the two axes."""

    stride: int  # px; coarsest grid in the network
    radius: int | None  # px beyond a stride-aligned window; None: all of the frame
    reason: str = ""  # why the radius is None


def receptive_field(model: onnx.ModelProto) -> ReceptiveField:
    """Stride and receptive radius of the path from `image` to `probabilities`.

    Raises ModelError for a graph that does not lead from one to the other at the same size. A
    graph with an operator that sees the whole frame, or that is not known here, has no radius.
    """
    graph = _Graph(model)
    for node in graph.spatial_nodes:
        if node.op_type in WHOLE_FRAME:
            return ReceptiveField(graph.stride, None, f"{node.op_type} sees the whole frame")
        if node.op_type not in POINTWISE | SLIDING | {"ConvTranspose", "Resize"}:
            return ReceptiveField(graph.stride, None, f"{node.op_type} is not understood")
        if reason := _not_exact(node):
            return ReceptiveField(graph.stride, None, reason)
    radii = [_radius(graph, axis) for axis in (0, 1)]
    return ReceptiveField(graph.stride, max(radii))


def _not_exact(node: onnx.NodeProto) -> str:
    """Why a known operator's reach cannot be told from its indices; empty where it can."""
    if node.op_type in ("Softmax", "Concat") and _integer(node, "axis", -1) not in (1, -3):
        return f"{node.op_type} runs along another axis than the channels"
    if node.op_type == "Resize":
        mode = _text(node, "mode", "nearest")
        grid = _text(node, "coordinate_transformation_mode", "half_pixel")
        if mode not in ("nearest", "linear") or grid not in ALIGNED_GRIDS:
            return f"Resize ({mode}, {grid}) depends on the size of the whole frame"
    return ""


class _Graph:
    """The nodes that pixels pass through, and the pitch of the grid each tensor lies on."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.shapes = {i.name: tuple(i.dims) for i in model.graph.initializer}
        # Values are wanted of scales alone; weights would only be copied.
        self.constants = {
            i.name: numpy_helper.to_array(i) for i in model.graph.initializer if len(i.dims) <= 1
        }
        self.spatial_nodes: list[onnx.NodeProto] = []
        # Pixels of the image per pixel of the tensor, along Y and X.
        self.pitch: dict[str, tuple[Fraction, Fraction]] = {IMAGE: (Fraction(1), Fraction(1))}
        for node in model.graph.node:
            if node.op_type == "Constant":
                value = numpy_helper.to_array(node.attribute[0].t)
                self.constants[node.output[0]] = value
                self.shapes[node.output[0]] = value.shape
            incoming = [self.pitch[name] for name in node.input if name in self.pitch]
            if incoming and node.op_type != "Shape":
                self.spatial_nodes.append(node)
                step = [_step(node, axis, self.constants) for axis in (0, 1)]
                pitch = (incoming[0][0] * step[0], incoming[0][1] * step[1])
                self.pitch.update(dict.fromkeys(node.output, pitch))
        if PROBABILITIES not in self.pitch:
            raise ModelError(f"the graph has no path from {IMAGE!r} to {PROBABILITIES!r}")
        if any(pitch != 1 for pitch in self.pitch[PROBABILITIES]):
            raise ModelError("the graph's probabilities are not of the image's own size")

    @property
    def stride(self) -> int:
        """Common multiple of all pitches."""
        pitches = [p for pair in self.pitch.values() for p in pair]
        return math.lcm(*(p.numerator for p in pitches))


def _step(node: onnx.NodeProto, axis: int, constants: dict[str, Any]) -> Fraction:
    """How much coarser the grid of `node`'s output is than that of its input."""
    if node.op_type in SLIDING:
        return Fraction(_attribute(node, "strides", axis, 1))
    if node.op_type == "ConvTranspose":
        return Fraction(1, _attribute(node, "strides", axis, 1))
    if node.op_type == "Resize":
        return 1 / _resize_scale(node, axis, constants)
    return Fraction(1)


def _radius(graph: _Graph, axis: int) -> int:
    # Far from index 0, so that intervals stay positive; a multiple of the stride, as tiles are.
    start = 1000 * graph.stride
    window = (start, start + graph.stride - 1)
    needed: dict[str, Interval] = {PROBABILITIES: window}
    for node in reversed(graph.spatial_nodes):
        wanted = [needed[name] for name in node.output if name in needed]
        if not wanted:
            continue
        hull = (min(w[0] for w in wanted), max(w[1] for w in wanted))
        first, last = _reads(graph, node, axis, hull)
        for name in node.input:
            if name in graph.pitch:
                seen = needed.get(name, (first, last))
                needed[name] = (min(seen[0], first), max(seen[1], last))
    first, last = needed[IMAGE]
    return max(window[0] - first, last - window[1], 0)


def _reads(graph: _Graph, node: onnx.NodeProto, axis: int, out: Interval) -> Interval:
    """Input indices along `axis` that the output indices `out` of `node` are made from."""
    if node.op_type in POINTWISE:
        return out
    if node.op_type == "Resize":
        scale = _resize_scale(node, axis, graph.constants)
        rounding = _text(node, "nearest_mode", "round_prefer_floor")
        nearest = _text(node, "mode", "nearest") == "nearest"
        reach = 0 if nearest and rounding in ("floor", "round_prefer_floor") else 1
        return math.floor(out[0] / scale) - reach, math.floor(out[1] / scale) + reach
    stride = _attribute(node, "strides", axis, 1)
    extent = (_kernel(graph, node, axis) - 1) * _attribute(node, "dilations", axis, 1)
    pad = _pad(node, axis, extent)
    if node.op_type == "ConvTranspose":
        return math.ceil((out[0] + pad - extent) / stride), (out[1] + pad) // stride
    return out[0] * stride - pad, out[1] * stride - pad + extent


def _pad(node: onnx.NodeProto, axis: int, extent: int) -> int:
    policy = _text(node, "auto_pad", "NOTSET")
    if policy in ("NOTSET", "VALID"):
        return _attribute(node, "pads", axis, 0) if policy == "NOTSET" else 0
    return extent // 2 if policy == "SAME_UPPER" else extent - extent // 2


def _kernel(graph: _Graph, node: onnx.NodeProto, axis: int) -> int:
    given = _attribute(node, "kernel_shape", axis, 0)
    if given:
        return given
    if len(node.input) < 2 or node.input[1] not in graph.shapes:
        raise ModelError(f"the graph computes the weights of {node.name or node.op_type}")
    return int(graph.shapes[node.input[1]][2 + axis])


def _resize_scale(node: onnx.NodeProto, axis: int, constants: dict[str, Any]) -> Fraction:
    scales = constants.get(node.input[2]) if len(node.input) > 2 else None
    if scales is None or scales.size != 4:
        raise ModelError("the graph resizes to a computed size; export it with a fixed scale")
    return Fraction(float(scales[2 + axis])).limit_denominator(64)


def _attribute(node: onnx.NodeProto, name: str, axis: int, default: int) -> int:
    for attribute in node.attribute:
        if attribute.name == name:
            return int(attribute.ints[axis])
    return default


def _integer(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _text(node: onnx.NodeProto, name: str, default: str) -> str:
    for attribute in node.attribute:
        if attribute.name == name:
            return bytes(attribute.s).decode()
    return default
