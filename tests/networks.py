"""U-Nets built with onnx.helper alone: the engine is tested without torch.

Weights are positive by default. Signed random weights cancel, and hide a halo that is too small.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.model.spec import METADATA_KEY, ClassSpec, ModelSpec, Normalisation


class _Builder:
    def __init__(self, seed: int, positive: bool, rim: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.positive = positive
        self.rim = rim
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def random(self, *shape: int, fan_in: int) -> str:
        values = self.rng.normal(size=shape) / np.sqrt(fan_in)
        return self.constant(np.abs(values) / np.sqrt(fan_in) if self.positive else values)

    def conv(self, x: str, n_in: int, n_out: int, k: int = 3) -> str:
        w = self.random(n_out, n_in, k, k, fan_in=n_in * k * k)
        if self.rim and k > 1:
            heavy = np.ones((k, k)) / 100
            heavy[[0, 0, -1, -1], [0, -1, 0, -1]] = 1 / 4
            w = self.constant(np.broadcast_to(heavy / n_in, (n_out, n_in, k, k)))
        b = self.random(n_out, fan_in=n_in * k * k)
        pad = k // 2
        return self.node("Conv", x, w, b, kernel_shape=[k, k], pads=[pad] * 4)

    def double(self, x: str, n_in: int, n_out: int) -> str:
        x = self.node("Relu", self.conv(x, n_in, n_out))
        return self.node("Relu", self.conv(x, n_out, n_out))


def unet(
    widths: tuple[int, ...] = (4, 8),
    *,
    n_channels: int = 1,
    n_outputs: int = 1,
    seed: int = 0,
    positive: bool = True,
    rim: bool = False,
    activation: bool = True,
    instance_norm: bool = False,
) -> onnx.ModelProto:
    """A U-Net as `engine.model.spec` has it; without activation its output is the logits.

    Two outputs are those of the foreground and of its cores.
    """
    b = _Builder(seed, positive, rim)
    low = b.node("Gather", "statistics", b.constant(0, np.int64), axis=2)
    high = b.node("Gather", "statistics", b.constant(1, np.int64), axis=2)
    axes = b.constant([2, 3], np.int64)
    low4, high4 = b.node("Unsqueeze", low, axes), b.node("Unsqueeze", high, axes)
    x = b.node("Div", b.node("Sub", "image", low4), b.node("Sub", high4, low4))
    n_in, skips = n_channels, []
    for width in widths[:-1]:
        x = b.double(x, n_in, width)
        skips.append((x, width))
        x = b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        n_in = width
    x, n_in = b.double(x, n_in, widths[-1]), widths[-1]
    for skip, width in reversed(skips):
        w = b.random(n_in, width, 2, 2, fan_in=n_in)
        x = b.node("ConvTranspose", x, w, kernel_shape=[2, 2], strides=[2, 2])
        x = b.double(b.node("Concat", skip, x, axis=1), 2 * width, width)
        n_in = width
    if instance_norm:
        ones = b.constant(np.ones(n_in))
        x = b.node("InstanceNormalization", x, ones, ones)
    x = b.conv(x, n_in, n_outputs, k=1)
    if activation:
        x = b.node("Sigmoid", x) if n_outputs < 3 else b.node("Softmax", x, axis=1)
    b.nodes[-1].output[0] = "probabilities"
    return _model(b, n_channels, n_outputs)


def threshold_model(*levels: float) -> onnx.ModelProto:
    """The simplest network in the contract: probability = sigmoid(20 x (normalised - level)).

    One level is that of the foreground, 0.5 by default; a second one is that of its cores.
    """
    levels = levels or (0.5,)
    b = _Builder(0, True)
    index0, index1 = b.constant(0, np.int64), b.constant(1, np.int64)
    axes = b.constant([2, 3], np.int64)
    lo = b.node("Unsqueeze", b.node("Gather", "statistics", index0, axis=2), axes)
    hi = b.node("Unsqueeze", b.node("Gather", "statistics", index1, axis=2), axes)
    x = b.node("Div", b.node("Sub", "image", lo), b.node("Sub", hi, lo))
    at = b.constant(np.reshape(levels, (1, -1, 1, 1)))
    x = b.node("Mul", b.node("Sub", x, at), b.constant(20.0))
    b.node("Sigmoid", x)
    b.nodes[-1].output[0] = "probabilities"
    return _model(b, 1, len(levels))


def class_map_model(n_classes: int) -> onnx.ModelProto:
    """A network whose class map is the image: by `class_map_spec`, a pixel's value is its class."""
    b = _Builder(0, True)
    axes = b.constant([2, 3], np.int64)
    low, high = (
        b.node("Unsqueeze", b.node("Gather", "statistics", b.constant(i, np.int64), axis=2), axes)
        for i in (0, 1)
    )
    x = b.node("Div", b.node("Sub", "image", low), b.node("Sub", high, low))
    k = np.arange(n_classes)  # class k is the most probable where x (n - 1) is nearest to k
    slopes, offsets = 20 * k * (n_classes - 1), 10 * k**2
    x = b.node("Mul", x, b.constant(np.reshape(slopes, (1, -1, 1, 1))))
    b.node("Softmax", b.node("Sub", x, b.constant(np.reshape(offsets, (1, -1, 1, 1)))), axis=1)
    b.nodes[-1].output[0] = "probabilities"
    return _model(b, 1, n_classes)


def class_map_spec(model: onnx.ModelProto, *classes: str, **changes: Any) -> ModelSpec:
    """The spec of `class_map_model` with these classes, background first."""
    values = Normalisation(policy="range", low=0, high=len(classes) - 1)
    return spec(model, classes=classes, normalisation=values, **changes)


def _model(b: _Builder, n_channels: int, n_outputs: int) -> onnx.ModelProto:
    def info(name: str, *dims: Any) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims))

    graph = helper.make_graph(
        b.nodes,
        "unet",
        [info("image", "N", n_channels, "H", "W"), info("statistics", "N", n_channels, 2)],
        [info("probabilities", "N", n_outputs, "H", "W")],
        b.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def spec(
    model: onnx.ModelProto | None = None,
    *,
    n_channels: int = 1,
    classes: tuple[str, ...] = ("background", "nucleus"),
    **changes: Any,
) -> ModelSpec:
    """A valid spec; stride and radius are read off `model` where one is given."""
    if model is not None:
        from engine.model.graph import receptive_field

        field = receptive_field(model)
        changes.setdefault("stride", field.stride)
        changes.setdefault("receptive_radius", field.radius or 0)
    palette = (
        "#000000",
        "#ff0000",
        "#00ff00",
        "#0000ff",
        "#ffff00",
        "#ff00ff",
        "#00ffff",
        "#ffffff",
    )
    values: dict[str, Any] = {
        "name": "test",
        "channels": tuple(f"channel {i}" for i in range(n_channels)),
        "classes": tuple(
            ClassSpec(name=n, color=c) for n, c in zip(classes, palette, strict=False)
        ),
        "normalisation": Normalisation(),
        "stride": 1,
        "receptive_radius": 0,
        **changes,
    }
    return ModelSpec(**values)


def save(path: Path, model: onnx.ModelProto, model_spec: ModelSpec | None) -> Path:
    """Write `model` with `model_spec` in its metadata (without, where None)."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if model_spec is not None:
        helper.set_model_props(copy, {METADATA_KEY: model_spec.model_dump_json()})
    path.write_bytes(copy.SerializeToString())
    return path
