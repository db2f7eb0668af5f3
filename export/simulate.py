"""A graph of ONNX in PyTorch, int8 simulated in float32, so that its weights can learn.

It is the graph that the quantiser wrote which is simulated, with its scales and zero points. So
there is one quantiser, and a model needs no checkpoint to be fine-tuned. Rounding has a gradient
of 1 where it does not clip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import UsageError
from export.inside import CONVOLUTIONS

QUANTISED = "_quantized"  # what ONNX Runtime's quantiser appends to the name of a weight
ACTIVATIONS = ("Sigmoid", "Softmax")  # of the output

Weights = Mapping[str, NDArray[np.float32]]
Attributes = Mapping[str, Any]


def weights_of(graph: onnx.GraphProto) -> dict[str, NDArray[np.float32]]:
    """Weights and biases of the convolutions, by name, of a graph in float32."""
    held = {one.name: one for one in graph.initializer}
    names = [
        name
        for node in graph.node
        if node.op_type in CONVOLUTIONS
        for name in node.input[1:]
        if name in held
    ]
    return {name: np.array(numpy_helper.to_array(held[name])) for name in names}


class GraphNetwork(nn.Module):
    """The logits of a graph, in float32 or in int8, with weights that learn.

    image         float32 (N, C, H, W), H and W multiples of the network's stride
    statistics    float32 (N, C, 2), low and high of the whole frame
    -> logits     float32 (N, K, H, W): what goes into the graph's last activation
    """

    def __init__(self, graph: onnx.GraphProto, weights: Weights, steps: int) -> None:
        """`weights` are those of the graph in float32, see `weights_of`; `steps` is the greatest
        weight of a channel in int8. UsageError for an operator that is not known here."""
        super().__init__()
        unknown = {node.op_type for node in graph.node} - {*OPERATORS, *ACTIVATIONS}
        unknown -= {"QuantizeLinear", "DequantizeLinear"}
        if unknown:
            raise UsageError(
                f"--fine-tune: the model has operators that it does not know "
                f"({', '.join(sorted(unknown))}); omit it"
            )
        self.steps = steps
        self.nodes = [node for node in graph.node if node.op_type not in ACTIVATIONS]
        self.inputs = [value.name for value in graph.input]
        last = next(node for node in graph.node if graph.output[0].name in node.output)
        self.output = last.input[0] if last.op_type in ACTIVATIONS else last.output[0]
        self.constants = {
            one.name: torch.from_numpy(np.array(numpy_helper.to_array(one)))
            for one in graph.initializer
            if one.name.removesuffix(QUANTISED) not in weights
        }
        self.names = list(weights)
        self.learnt = nn.ParameterList(torch.from_numpy(np.array(one)) for one in weights.values())

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The weights as they are now, in float32."""
        pairs = zip(self.names, self.learnt, strict=True)
        return {name: np.array(one.detach().numpy()) for name, one in pairs}

    def forward(self, image: Tensor, statistics: Tensor) -> Tensor:
        """Logits of one batch."""
        learnt: dict[str, Tensor] = dict(zip(self.names, self.learnt, strict=True))
        values = self.constants | learnt
        values |= dict(zip(self.inputs, (image, statistics), strict=True))
        for node in self.nodes:
            attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            first, *others = node.input
            if node.op_type == "QuantizeLinear":
                found = _rounded(values[first], *(values[name] for name in others))
            elif node.op_type == "DequantizeLinear":
                name = first.removesuffix(QUANTISED)
                found = values[first] if name == first else learnt[name]
                if found.ndim > 1 and name != first:  # biases are rounded to 32 bits: not at all
                    found = self._rounded_weight(found, attributes["axis"])
            else:
                inputs = [values[name] for name in node.input if name]
                found = OPERATORS[node.op_type](inputs, attributes)
            values[node.output[0]] = found
        return values[self.output]

    def _rounded_weight(self, weight: Tensor, axis: int) -> Tensor:
        """As the quantiser will round it, with a scale for each channel by its greatest value."""
        others = [n for n in range(weight.ndim) if n != axis]
        scale = (weight.detach().abs().amax(others) / self.steps).clamp(min=1e-12)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(
            weight, scale, zero, axis, -self.steps, self.steps
        )


def _rounded(values: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    limits = torch.iinfo(zero.dtype)
    return torch.fake_quantize_per_tensor_affine(
        values, scale, zero.to(torch.int32), limits.min, limits.max
    )


def _convolution(inputs: Sequence[Tensor], attributes: Attributes) -> Tensor:
    pads = attributes.get("pads", [0, 0, 0, 0])
    image = F.pad(inputs[0], [pads[1], pads[3], pads[0], pads[2]])  # left, right, top, bottom
    return F.conv2d(
        image, inputs[1], inputs[2] if len(inputs) > 2 else None,
        attributes.get("strides", 1), 0, attributes.get("dilations", 1), attributes.get("group", 1),
    )  # fmt: skip


def _transposed(inputs: Sequence[Tensor], attributes: Attributes) -> Tensor:
    if any(attributes.get("pads", [])) or any(attributes.get("output_padding", [])):
        raise UsageError("--fine-tune: does not know padded transposed convolutions; omit it")
    return F.conv_transpose2d(
        inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None,
        attributes.get("strides", 1), 0, 0, attributes.get("group", 1),
        attributes.get("dilations", 1),
    )  # fmt: skip


def _max_pool(inputs: Sequence[Tensor], attributes: Attributes) -> Tensor:
    pads = attributes.get("pads", [0, 0, 0, 0])
    image = F.pad(inputs[0], [pads[1], pads[3], pads[0], pads[2]], value=float("-inf"))
    return F.max_pool2d(image, attributes["kernel_shape"], attributes.get("strides", 1))


def _clip(inputs: Sequence[Tensor], _: Attributes) -> Tensor:
    return torch.clamp(inputs[0], *inputs[1:])


def _space_to_depth(inputs: Sequence[Tensor], attributes: Attributes) -> Tensor:
    """All channels for each pixel of a block, where PyTorch has all pixels for each channel."""
    size = attributes["blocksize"]
    n, channels, height, width = inputs[0].shape
    found = F.pixel_unshuffle(inputs[0], size).view(n, channels, size**2, -1)
    return found.transpose(1, 2).reshape(n, channels * size**2, height // size, width // size)


def _depth_to_space(inputs: Sequence[Tensor], attributes: Attributes) -> Tensor:
    if attributes.get("mode", b"DCR") != b"CRD":
        raise UsageError("--fine-tune: knows DepthToSpace in the order CRD alone; omit it")
    return F.pixel_shuffle(inputs[0], attributes["blocksize"])


def _resize(inputs: Sequence[Tensor], attributes: Attributes) -> Tensor:
    how = attributes.get("mode"), attributes.get("coordinate_transformation_mode", b"half_pixel")
    if how != (b"linear", b"half_pixel"):
        raise UsageError("--fine-tune: knows bilinear Resize alone; omit it")
    scales = [float(one) for one in inputs[-1][2:]]
    return F.interpolate(inputs[0], scale_factor=scales, mode="bilinear")


def _unsqueeze(inputs: Sequence[Tensor], _: Attributes) -> Tensor:
    found = inputs[0]
    for axis in sorted(int(one) for one in inputs[1]):
        found = found.unsqueeze(axis)
    return found


def _gather(inputs: Sequence[Tensor], attributes: Attributes) -> Tensor:
    values, index = inputs
    axis = attributes.get("axis", 0)
    return values.select(axis, int(index)) if index.ndim == 0 else values.index_select(axis, index)


OPERATORS: Mapping[str, Callable[[Sequence[Tensor], Attributes], Tensor]] = {
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "Clip": _clip,
    "Concat": lambda inputs, attributes: torch.cat(list(inputs), cast(int, attributes["axis"])),
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "DepthToSpace": _depth_to_space,
    "Div": lambda inputs, _: inputs[0] / inputs[1],
    "Gather": _gather,
    "MaxPool": _max_pool,
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "Relu": lambda inputs, _: torch.relu(inputs[0]),
    "Resize": _resize,
    "SpaceToDepth": _space_to_depth,
    "Sub": lambda inputs, _: inputs[0] - inputs[1],
    "Unsqueeze": _unsqueeze,
}
