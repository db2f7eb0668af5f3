"""Static int8 by ONNX Runtime's quantiser: per channel, calibrated on frames."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from engine.geometry.tiling import round_up
from engine.inference.agreement import Look
from engine.inference.tiles import pad_to
from engine.model.spec import IMAGE, STATISTICS
from engine.model.statistics import normalisable
from export.inside import inside

# ONNX Runtime has no kernel in int8 for ConvTranspose: it would be quantised for nothing.
QUANTISED = ["Conv", "Relu", "MaxPool", "Concat"]


def quantiser() -> str:
    """What quantises, for the record."""
    return f"onnxruntime.quantization {onnxruntime.__version__}: static, per channel, 7-bit weights"


class Quantiser:
    """Quantises a graph again and again, with more of it left in float32; calibrates once."""

    def __init__(self, graph: onnx.ModelProto, looks: Sequence[Look], folder: Path) -> None:
        """`graph` has names, see `export.inside.named`; `folder` is for files that may be lost."""
        self._graph, self._looks, self._folder = graph, looks, folder
        onnx.save(graph, folder / "fp32.onnx")
        names = {node.name for node in inside(graph)}
        self._outside = [node.name for node in graph.graph.node if node.name not in names]

    def __call__(self, left: Sequence[str]) -> onnx.ModelProto:
        """The graph in int8, but for the convolutions `left` in float32."""
        # A convolution in float32 is followed by its activation in float32.
        after = [
            node.name
            for node in self._graph.graph.node
            if node.op_type == "Relu" and node.input[0] in left
        ]
        with _without_advice():
            quantize_static(
                self._folder / "fp32.onnx", self._folder / "int8.onnx", _Reader(self._looks),
                quant_format=QuantFormat.QDQ, op_types_to_quantize=QUANTISED, per_channel=True,
                # Processors without VNNI add two products in 16 bits: 7-bit weights always fit.
                reduce_range=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                nodes_to_exclude=[*self._outside, *left, *after],
                calibration_cache_path=self._folder / "ranges.json",
            )  # fmt: skip
        return onnx.load(self._folder / "int8.onnx")


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
