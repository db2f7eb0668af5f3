"""A second runtime, in NumPy: all that one more takes is such a file and a line in the registry."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import onnx
from onnx.reference import ReferenceEvaluator

from engine.errors import UsageError
from engine.model.file import ModelFile
from engine.model.graph.memory import activation_bytes
from engine.runtimes.base import Caution, Compute, MemoryNeeds, Needs, Runtime, Shape, Target


class ReferenceRuntime(Runtime):
    name = "reference"
    title = "ONNX's reference"
    precisions = ("fp32",)
    cautions = (Caution.OPTIMISED,)

    def resolve_device(self, device: str) -> str:
        if device not in ("auto", "cpu"):
            raise UsageError(f"device {device!r} is not known; use auto or cpu")
        return "cpu"

    def build(self, target: Target) -> str:
        return f"onnx.reference {onnx.__version__} float32"

    def load(self, graph: bytes, target: Target, threads: int, in_flight: int) -> Compute:
        evaluator = ReferenceEvaluator(onnx.load_model_from_string(graph))

        def compute(pixels: Any, statistics: Any, out: Any) -> None:
            feeds = {"image": pixels, "statistics": statistics}
            out[...] = evaluator.run(["probabilities"], feeds)[0]

        return compute

    def memory(
        self,
        model: ModelFile,
        target: Target,
        shapes: Collection[Shape],
        sessions: int,
        one_shape: bool = False,
    ) -> MemoryNeeds:
        # It lets go of nothing, and casts to float64 on its way.
        counted = max(n * activation_bytes(model.parse(), h, w) for n, h, w in shapes)
        return MemoryNeeds(Needs(2 * sessions * len(model.data), 10 * counted))
