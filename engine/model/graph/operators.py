"""How each ONNX operator moves along Y and X: which input indices an output index is made from.

An operator that is not listed here, or used in a way that is not, is not guessed at: `reach`
raises `NoReach`, and the network runs on whole frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import onnx

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
# Resize grids on which an output pixel's place does not depend on the size of the image.
ALIGNED_GRIDS = frozenset(["half_pixel", "pytorch_half_pixel", "asymmetric"])
TO_THE_END = 2**31 - 1  # how exporters write "until the last"; int64's maximum is above it

Constants = Mapping[str, Any]  # values of initializers and Constant nodes, where they matter
Shapes = Mapping[str, tuple[int, ...]]  # of all of them


class NoReach(Exception):
    """Why an operator's reach is unknown; the text is a clause."""


@dataclass(frozen=True)
class Along:
    """An operator along one axis. `first` and `last` grow with the index, or stay."""

    step: Fraction  # how much coarser the grid of the output is than that of the input
    first: Callable[[int], int]  # first input index that an output index reads
    last: Callable[[int], int]
    length: Callable[[int], int]  # of the output, by that of the input
    mirrors: bool = False  # what lies beyond the input's ends is read from within


def _same(index: int) -> int:
    return index


POINT = Along(Fraction(1), _same, _same, _same)


@dataclass(frozen=True)
class Operator:
    """A node of the main graph, and what is known of its constant inputs."""

    node: onnx.NodeProto
    constants: Constants
    shapes: Shapes
    opset: int

    @property
    def kind(self) -> str:
        """The operator's name."""
        return self.node.op_type

    def input(self, position: int) -> str:
        """Name of an input; empty where it is left out."""
        return self.node.input[position] if position < len(self.node.input) else ""

    def attribute(self, name: str, default: Any) -> Any:
        """Value of an attribute; text as `str`."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                value = onnx.helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def pair(self, name: str, default: int) -> tuple[int, int]:
        """An attribute with a value for Y and for X."""
        values = self.attribute(name, (default, default))
        if len(values) != 2:
            raise NoReach(f"{self.kind} has {len(values)} {name} and not 2")
        return values[0], values[1]

    def integers(self, position: int, name: str) -> list[int] | None:
        """Integers of an input, or of an attribute in older graphs. None: left out."""
        if not self.input(position):
            given = self.attribute(name, None)
            return None if given is None else [int(v) for v in given]
        value = self.constants.get(self.input(position))
        if value is None:
            raise NoReach(f"{self.kind} computes its {name}")
        return [int(v) for v in np.atleast_1d(value)]


def reach(op: Operator) -> tuple[Along, Along]:
    """How `op` acts along Y and X; NoReach where that is unknown."""
    if op.kind in RULES:
        return RULES[op.kind](op)
    if op.kind in WHOLE_FRAME:
        raise NoReach(f"{op.kind} sees the whole frame")
    if op.kind not in POINTWISE | CHANNELWISE:
        raise NoReach(f"{op.kind} is not understood")
    return POINT, POINT


# -- along the channels ----------------------------------------------------------------------------


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


# -- along Y and X ---------------------------------------------------------------------------------


def _sliding(op: Operator) -> tuple[Along, Along]:
    """Convolution and pooling."""
    if op.kind == "MaxPool" and len(op.node.output) > 1 and op.node.output[1]:
        raise NoReach("MaxPool gives positions in the whole frame")
    strides, dilations = _spacing(op)
    pads, policy = op.attribute("pads", (0, 0, 0, 0)), op.attribute("auto_pad", "NOTSET")
    ceil_mode = bool(op.attribute("ceil_mode", 0))

    def along(axis: int, kernel: int) -> Along:
        stride, extent = strides[axis], (kernel - 1) * dilations[axis]
        if policy in ("SAME_UPPER", "SAME_LOWER"):
            both = max(extent + 1 - stride, 0)  # of an input in whole strides
            before = both // 2 if policy == "SAME_UPPER" else both - both // 2
            after = both - before
        else:
            before, after = (pads[axis], pads[axis + 2]) if policy == "NOTSET" else (0, 0)

        def length(n: int) -> int:
            rest = n + before + after - extent - 1
            if (ceil_mode and rest % stride) or (policy.startswith("SAME") and n % stride):
                raise NoReach(f"{op.kind} pads by the size of its input")
            return rest // stride + 1

        return Along(
            Fraction(stride),
            lambda i: i * stride - before,
            lambda i: i * stride - before + extent,
            length,
        )

    kernel = _kernel(op)
    return along(0, kernel[0]), along(1, kernel[1])


def _transposed(op: Operator) -> tuple[Along, Along]:
    """Transposed convolution."""
    if op.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or op.attribute(
        "output_shape", None
    ):
        raise NoReach("ConvTranspose pads by the size of its output")
    strides, dilations = _spacing(op)
    pads, extra = op.attribute("pads", (0, 0, 0, 0)), op.pair("output_padding", 0)

    def along(axis: int, kernel: int) -> Along:
        stride, extent = strides[axis], (kernel - 1) * dilations[axis]
        before, after = pads[axis], pads[axis + 2]
        return Along(
            Fraction(1, stride),
            lambda i: -((extent - i - before) // stride),
            lambda i: (i + before) // stride,
            lambda n: stride * (n - 1) + extra[axis] + extent + 1 - before - after,
        )

    kernel = _kernel(op)
    return along(0, kernel[0]), along(1, kernel[1])


def _spacing(op: Operator) -> tuple[tuple[int, int], tuple[int, int]]:
    strides, dilations = op.pair("strides", 1), op.pair("dilations", 1)
    if min(*strides, *dilations) < 1:
        raise NoReach(f"{op.kind} has a stride or dilation below 1")
    return strides, dilations


def _kernel(op: Operator) -> tuple[int, int]:
    given = op.attribute("kernel_shape", None) or op.shapes.get(op.input(1), ())[2:]
    if len(given) != 2:
        raise NoReach(f"{op.kind} has a kernel that is computed, or not of two axes")
    return given[0], given[1]


def _resize(op: Operator) -> tuple[Along, Along]:
    """Resize by a constant scale."""
    mode = op.attribute("mode", "nearest")
    grid = op.attribute("coordinate_transformation_mode", "half_pixel")
    if mode not in ("nearest", "linear") or grid not in ALIGNED_GRIDS:
        raise NoReach(f"Resize ({mode}, {grid}) depends on the size of the whole frame")
    scales = op.constants.get(op.input(2))
    if op.opset < 11 or scales is None or len(scales) != 4 or op.attribute("axes", None):
        raise NoReach("Resize has a size that is computed or fixed, and no constant scale")
    if op.attribute("antialias", 0) or any(scales[:2] != 1):
        raise NoReach("Resize with antialias, or along the channels, is not understood")
    if any(not math.isfinite(s) or s <= 0 for s in scales):
        raise NoReach("Resize has a scale that is not a positive number")
    rounding = op.attribute("nearest_mode", "round_prefer_floor")

    def along(scale: Fraction) -> Along:
        # Only where the runtime's float32 coordinates are exact do they not depend on the place.
        ends = {scale.numerator, scale.denominator}
        exact = 1 in ends and (mode == "nearest" or all(e & (e - 1) == 0 for e in ends))
        if not exact or (grid == "pytorch_half_pixel" and scale < 1):
            raise NoReach(f"Resize ({mode}) by {float(scale):g} depends on the place in the frame")
        offset = Fraction(0) if grid == "asymmetric" else Fraction(1, 2)

        def place(index: int) -> Fraction:
            return (index + offset) / scale - offset

        def nearest(index: int) -> int:
            return _round(place(index), rounding)

        linear = mode == "linear"
        return Along(
            1 / scale,
            (lambda i: math.floor(place(i))) if linear else nearest,
            (lambda i: math.ceil(place(i))) if linear else nearest,
            lambda n: math.floor(n * scale),
        )

    y, x = (Fraction(float(s)) for s in scales[2:])
    return along(_simple(y)), along(_simple(x))


def _simple(scale: Fraction) -> Fraction:
    """One over an integer, where float32 can't hold it."""
    simple = scale.limit_denominator(64)
    return simple if np.float32(float(simple)) == np.float32(float(scale)) else scale


def _round(place: Fraction, mode: str) -> int:
    if mode == "round_prefer_floor":
        return math.ceil(place - Fraction(1, 2))
    if mode == "round_prefer_ceil":
        return math.floor(place + Fraction(1, 2))
    return math.ceil(place) if mode == "ceil" else math.floor(place)


def _block_size(op: Operator) -> int:
    size = int(op.attribute("blocksize", 0))
    if size < 1:
        raise NoReach(f"{op.kind} has no blocksize")
    return size


def _depth_to_space(op: Operator) -> tuple[Along, Along]:
    """Channels become blocks of pixels."""
    b = _block_size(op)
    both = Along(Fraction(1, b), lambda i: i // b, lambda i: i // b, lambda n: n * b)
    return both, both


def _space_to_depth(op: Operator) -> tuple[Along, Along]:
    """Blocks of pixels become channels."""
    b = _block_size(op)
    both = Along(Fraction(b), lambda i: i * b, lambda i: i * b + b - 1, lambda n: n // b)
    return both, both


def _pad(op: Operator) -> tuple[Along, Along]:
    """Padding, but not around the frame."""
    if (mode := op.attribute("mode", "constant")) not in ("constant", "reflect", "edge"):
        raise NoReach(f"Pad ({mode}) depends on the size of the whole frame")
    pads = op.integers(1, "pads") or []
    axes = [a % 4 for a in (op.integers(3, "axes") or range(len(pads) // 2))]
    if len(pads) != 2 * len(axes):
        raise NoReach("Pad does not say how much for each axis")
    before = dict(zip(axes, pads[: len(axes)], strict=True))
    after = dict(zip(axes, pads[len(axes) :], strict=True))

    def along(axis: int) -> Along:
        first, last = before.get(axis, 0), after.get(axis, 0)
        place = lambda i: i - first  # noqa: E731
        mirrors = mode != "constant"
        return Along(Fraction(1), place, place, lambda n: n + first + last, mirrors)

    return along(2), along(3)


def _slice(op: Operator) -> tuple[Along, Along]:
    """Cutting at the start or the end, and strided."""
    starts, ends = op.integers(1, "starts") or [], op.integers(2, "ends") or []
    axes = [a % 4 for a in (op.integers(3, "axes") or range(len(starts)))]
    steps = op.integers(4, "steps") or [1] * len(starts)
    found = {2: POINT, 3: POINT}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if axis == 0:
            raise NoReach("Slice cuts the batch")
        if axis > 1:
            found[axis] = _cut(start, end, step)
    return found[2], found[3]


def _cut(start: int, end: int, step: int) -> Along:
    if start < 0 or step < 1 or 0 <= end < TO_THE_END:
        raise NoReach("Slice depends on the size of the whole frame")
    cut = -end if end < 0 else 0

    def place(index: int) -> int:
        return start + index * step

    return Along(Fraction(step), place, place, lambda n: -((start + cut - n) // step))


RULES: Mapping[str, Callable[[Operator], tuple[Along, Along]]] = {
    "AveragePool": _sliding,
    "BatchNormalization": _batch_normalisation,
    "Concat": lambda op: _axis(op, default=0),
    "Conv": _sliding,
    "ConvTranspose": _transposed,
    "DepthToSpace": _depth_to_space,
    "DequantizeLinear": _quantised,
    "Dropout": _dropout,
    "Gather": _gather,
    "LogSoftmax": _softmax,
    "MaxPool": _sliding,
    "Pad": _pad,
    "QuantizeLinear": _quantised,
    "Resize": _resize,
    "Slice": _slice,
    "Softmax": _softmax,
    "SpaceToDepth": _space_to_depth,
    "Split": lambda op: _axis(op, default=0),
    **dict.fromkeys((k for k in CHANNELWISE if k.startswith("Reduce")), _reduce),
}
