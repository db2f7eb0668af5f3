"""How each ONNX operator moves along Y and X: which input indices an output index is made from.

An operator that is not listed here, or used in a way that is not, is not guessed at: `reach`
raises `NoReach`, and the network runs on whole frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from engine.model.graph import moving
from engine.model.graph.operator import POINT, Along, NoReach, Operator

# fmt: off
POINTWISE = frozenset([
    "Abs", "Add", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Div", "Dropout", "Elu",
    "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log",
    "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Selu", "Sigmoid",
    "Softmax", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Where",
])
# Pointwise in reach, for all that they see of an axis is the channels.
CHANNELWISE = frozenset([
    "DequantizeLinear", "Gather", "LogSoftmax", "QuantizeLinear", "ReduceL2", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare", "Split",
])
# They broadcast: all of their inputs may be images, and none may differ along Y or X otherwise.
BROADCASTING = frozenset([
    "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Where", "PRelu", "Concat",
])
WHOLE_FRAME = frozenset([
    "Attention", "CumSum", "Einsum", "Gemm", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool",
    "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LpNormalization",
    "MatMul", "MeanVarianceNormalization", "NonZero", "TopK",
])
# fmt: on
CHANNELS = (1, -3)


def reach(op: Operator) -> tuple[Along, Along]:
    """How `op` acts along Y and X; NoReach where that can't be told."""
    if op.kind in RULES:
        return RULES[op.kind](op)
    if op.kind in WHOLE_FRAME:
        raise NoReach(f"{op.kind} sees the whole frame")
    if op.kind not in POINTWISE | CHANNELWISE:
        raise NoReach(f"{op.kind} is not understood")
    return POINT, POINT


def _axis(op: Operator, default: int, changed_in: int = 0) -> tuple[Along, Along]:
    """Fine along the channels."""
    if op.attribute("axis", default) not in CHANNELS:
        raise NoReach(f"{op.kind} runs along another axis than the channels")
    if op.opset < changed_in:
        # Older graphs flatten all from that axis on.
        raise NoReach(f"{op.kind} before opset {changed_in} sees the whole frame")
    return POINT, POINT


def _softmax(op: Operator) -> tuple[Along, Along]:
    return _axis(op, default=-1 if op.opset >= 13 else 1, changed_in=13)


def _reduce(op: Operator) -> tuple[Along, Along]:
    axes = op.integers(1, "axes")
    if not axes or set(axes) - set(CHANNELS) or not op.attribute("keepdims", 1):
        raise NoReach(f"{op.kind} sees the whole frame")
    return POINT, POINT


def _gather(op: Operator) -> tuple[Along, Along]:
    if len(op.shapes.get(op.input(1), ())) != 1:
        raise NoReach("Gather takes away an axis, or computes its indices")
    return _axis(op, default=0)


def _quantised(op: Operator) -> tuple[Along, Along]:
    scale = op.shapes.get(op.input(1))
    if scale is None or op.attribute("block_size", 0):
        raise NoReach(f"{op.kind} computes its scale, or has one for each block")
    return (POINT, POINT) if math.prod(scale) == 1 else _axis(op, default=1)


def _batch_normalisation(op: Operator) -> tuple[Along, Along]:
    if op.attribute("training_mode", 0) or not op.attribute("spatial", 1) or op.opset < 7:
        raise NoReach("BatchNormalization in training mode sees the whole frame")
    return POINT, POINT


def _dropout(op: Operator) -> tuple[Along, Along]:
    training = op.input(2)
    if training and np.any(op.constants.get(training, True)):
        raise NoReach("Dropout in training mode is random")
    return POINT, POINT


RULES: Mapping[str, Callable[[Operator], tuple[Along, Along]]] = {
    "AveragePool": moving.sliding,
    "BatchNormalization": _batch_normalisation,
    "Concat": lambda op: _axis(op, default=0),
    "Conv": moving.sliding,
    "ConvTranspose": moving.transposed,
    "DepthToSpace": moving.depth_to_space,
    "DequantizeLinear": _quantised,
    "Dropout": _dropout,
    "Gather": _gather,
    "LogSoftmax": _softmax,
    "MaxPool": moving.sliding,
    "Pad": moving.pad,
    "QuantizeLinear": _quantised,
    "Resize": moving.resize,
    "Slice": moving.slice,
    "Softmax": _softmax,
    "SpaceToDepth": moving.space_to_depth,
    "Split": lambda op: _axis(op, default=0),
    **dict.fromkeys((k for k in CHANNELWISE if k.startswith("Reduce")), _reduce),
}
