"""Static int8 by ONNX Runtime's quantiser: per channel, calibrated on frames."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from engine.geometry.tiling import round_up
from engine.inference.agreement import Look
from engine.inference.tiles import pad_to
from engine.model.spec import IMAGE, STATISTICS
from engine.model.statistics import normalisable
from export.inside import convolutions, inside

ACTIVATIONS = ("Relu", "Clip")
QUANTISED = ["Conv", "ConvTranspose", *ACTIVATIONS, "MaxPool", "Concat"]
# Processors without VNNI add two products in 16 bits: 7-bit weights always fit.
LARGEST = 64


def quantiser() -> str:
    """What quantises, for the record."""
    return f"onnxruntime.quantization {onnxruntime.__version__}: static, per channel, 7-bit weights"


class Quantiser:
    """Quantises a graph again and again, with more of it left in float32; calibrates once."""

    def __init__(self, graph: onnx.ModelProto, looks: Sequence[Look], folder: Path) -> None:
        """`graph` has names, see `export.inside.named`; `folder` is for files that may be lost."""
        self._graph, self._looks, self._folder = graph, looks, folder
        names = {node.name for node in inside(graph)}
        self._outside = [node.name for node in graph.graph.node if node.name not in names]
        # Before an activation there is nothing to round yet, and logits in 8 bits move every edge.
        followed = {node.input[0] for node in graph.graph.node if node.op_type in ACTIVATIONS}
        self._unrounded = {*(followed & names), convolutions(graph)[-1]}
        self._overrides: dict[str, Any] = {}
        self._overrides = _joined(self._quantised([]))

    def __call__(self, left: Sequence[str]) -> onnx.ModelProto:
        """The graph in int8, but for the convolutions `left` in float32."""
        return _without_rounding(self._quantised(left), self._unrounded)

    def take(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Have other weights from now on, by name; the ranges of values stay."""
        for one in self._graph.graph.initializer:
            if one.name in weights:
                one.CopyFrom(numpy_helper.from_array(weights[one.name], one.name))

    def _quantised(self, left: Sequence[str]) -> onnx.ModelProto:
        # A convolution in float32 is followed by its activation in float32.
        after = [
            node.name
            for node in self._graph.graph.node
            if node.op_type in ACTIVATIONS and node.input[0] in left
        ]
        onnx.save(self._graph, self._folder / "fp32.onnx")
        with _without_advice():
            quantize_static(
                self._folder / "fp32.onnx", self._folder / "int8.onnx", _Reader(self._looks),
                quant_format=QuantFormat.QDQ, op_types_to_quantize=QUANTISED, per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                nodes_to_exclude=[*self._outside, *left, *after],
                calibration_cache_path=self._folder / "ranges.json",
                extra_options={
                    "TensorQuantOverrides": self._overrides,
                    # A rounding that is overridden does not begin at 0, and can't stand for them.
                    "QDQKeepRemovableActivations": True,
                },
            )  # fmt: skip
        return onnx.load(self._folder / "int8.onnx")


def _joined(graph: onnx.ModelProto) -> dict[str, Any]:
    """What is joined is to have the scale of the whole: then nothing is rounded again, and
    OpenVINO joins bytes (it takes twice the time for values of several scales)."""
    makers = {output: node for node in graph.graph.node for output in node.output}
    takers = {node.input[0]: node for node in graph.graph.node if node.op_type == "QuantizeLinear"}
    held = {one.name: numpy_helper.to_array(one) for one in graph.graph.initializer}
    overrides: dict[str, Any] = {}
    for node in graph.graph.node:
        if node.op_type == "Concat" and (whole := takers.get(node.output[0])) is not None:
            scale, zero = (held[name] for name in whole.input[1:])
            for name in node.input:
                if makers[name].op_type == "DequantizeLinear":
                    part = makers[makers[name].input[0]].input[0]
                    overrides[part] = [{"scale": scale, "zero_point": zero}]
    return overrides


def _without_rounding(graph: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """The graph with the outputs of these nodes as they are."""
    rounds = {n.output[0]: n.input[0] for n in graph.graph.node if n.op_type == "QuantizeLinear"}
    bypassed: dict[str, str] = {}
    for node in list(graph.graph.node):
        if node.op_type == "QuantizeLinear" and node.input[0] in names:
            graph.graph.node.remove(node)
        elif node.op_type == "DequantizeLinear" and rounds.get(node.input[0]) in names:
            bypassed[node.output[0]] = rounds[node.input[0]]
            graph.graph.node.remove(node)
    for node in graph.graph.node:
        node.input[:] = [bypassed.get(name, name) for name in node.input]
    return graph


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep the quantiser's advice, which it logs as warnings, from those who can't follow it."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Frames as the quantiser asks for them, one by one."""

    def __init__(self, looks: Sequence[Look]) -> None:
        self._looks = iter(looks)

    def get_next(self) -> dict[str, Any] | None:
        """What goes into the network; None at the end."""
        look = next(self._looks, None)
        if look is None:
            return None
        height, width = (round_up(n, look.tiling.stride) for n in look.pixels.shape[1:])
        padded = pad_to(look.pixels, (height, width)).astype(np.float32)
        return {IMAGE: padded[None], STATISTICS: normalisable(look.statistics)[None]}
