"""OpenVINO on the CPU: in float32, and in bfloat16 or float16 where the processor has them."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any
from weakref import WeakSet

from onnx import TensorProto

from engine.errors import UsageError, first_line
from engine.model.file import ModelFile
from engine.model.graph.faster import speed_up
from engine.model.graph.memory import activation_bytes
from engine.model.spec import IMAGE, PROBABILITIES, STATISTICS
from engine.runtimes.base import (
    Caution,
    Compute,
    Constant,
    Floats,
    MemoryNeeds,
    Needs,
    Pixels,
    Precision,
    Result,
    Runtime,
    Shape,
    Target,
)


def _without_telemetry() -> Any:
    """OpenVINO, which tells its makers of its import where it finds their package for that."""
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        import openvino

        return openvino
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


ov = _without_telemetry()

TYPES: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
CAPABILITIES: dict[Precision, str] = {"bf16": "BF16", "fp16": "FP16"}  # as OpenVINO names them
# Less than float32 begins with the first of these. What comes before them normalises: there,
# raw pixels above 256 would no longer be told apart in bfloat16.
HEAVY = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"}

# What is in the message when it was memory: of C++, oneDNN and OpenVINO.
MEMORY_SIGNS = (
    "bad_alloc", "bad allocation", "out of memory", "out_of_memory", "failed to allocate",
    "cannot allocate memory", "std::length_error",
)  # fmt: skip

PLACES = (
    "Exception from", "Check '", "While validating", "FrontEnd API failed", "Model wasn't fully",
    "Summary:",
)  # fmt: skip

COMMAND = "`python -m benchmarks.openvino_memory`"
OPENVINO_COPIES = Constant(
    5, "of the model file", "weights of a session of OpenVINO, packed for several shapes", COMMAND
)
OPENVINO_BASE = Constant(96 * 2**20, "bytes", "libraries of OpenVINO", COMMAND)
OPENVINO_RUN = Constant(2.1, "of the counted bytes", "activations of a run by OpenVINO", COMMAND)
OPENVINO_INT8 = Constant(
    1.5, "of the counted bytes", "the same of a model in int8, whose values are counted as float32",
    COMMAND,
)  # fmt: skip
OPENVINO_ONE_SHAPE = Constant(
    1.4, "of the counted bytes", "activations of a run by OpenVINO, all runs of one shape", COMMAND
)
OPENVINO_INT8_ONE_SHAPE = Constant(
    0.8, "of the counted bytes", "the same of a model in int8, all runs of one shape", COMMAND
)
# By whether a model is in int8, and whether a session is for one shape.
RUNS = {
    (False, False): OPENVINO_RUN,
    (False, True): OPENVINO_ONE_SHAPE,
    (True, False): OPENVINO_INT8,
    (True, True): OPENVINO_INT8_ONE_SHAPE,
}

# Runs of a known shape take 2 to 4 % less time, in int8 9 to 14 %, and the same bytes come out
# (benchmarks/results/faster-graphs.md). Chosen: a small job gains nothing that it would notice.
MANY_RUNS = 64

_loaded: WeakSet[Requests] = WeakSet()  # of this process, for `release_memory`


class OpenVino(Runtime):
    """See `engine.runtimes.base.Runtime`."""

    name = "openvino"
    title = "OpenVINO"
    cautions = (Caution.OPTIMISED,)  # its optimisations cannot be turned off
    memory_signs = MEMORY_SIGNS

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """float32, and those that the processor has instructions for.

        Elsewhere OpenVINO emulates bfloat16, more slowly than it computes float32 (with AVX-512),
        or takes it for float32 without a word (with AVX2), as it always takes float16.
        """
        there = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return ("fp32", *(name for name, sign in CAPABILITIES.items() if sign in there))

    def resolve_device(self, device: str) -> str:
        """ "auto" or "cpu" as "cpu"."""
        if device not in ("auto", "cpu"):
            raise UsageError(
                f"device {device}: OpenVINO runs on the CPU alone here; use --device cpu, or "
                "--runtime onnxruntime"
            )
        return "cpu"

    def prefers_one_shape(self, model: ModelFile, runs: int) -> bool:
        """See MANY_RUNS. With weights in float16 the bytes of bfloat16 would be others."""
        weights = model.parse().graph.initializer if runs >= MANY_RUNS else ()
        return bool(weights) and all(w.data_type != TensorProto.FLOAT16 for w in weights)

    def build(self, target: Target) -> str:
        """Version, device, precision."""
        version = ov.get_version().partition("-")[0]
        return f"openvino {version} CPU {TYPES[target.precision]}"

    def load(self, graph: bytes, target: Target, threads: int, in_flight: int) -> Compute:
        """The model with a stream for each run in flight."""
        network = _core().read_model(graph, b"")
        options = {
            "INFERENCE_NUM_THREADS": threads * in_flight,
            "NUM_STREAMS": in_flight,
            # It would choose both by itself, and on some processors bfloat16.
            "EXECUTION_MODE_HINT": "ACCURACY",
            "INFERENCE_PRECISION_HINT": TYPES["fp32"],
            # Several processes on one machine would all be pinned to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        first = None if target.precision == "fp32" else _normalisation(network)
        lower = options | {"INFERENCE_PRECISION_HINT": TYPES[target.precision]}
        if first is None:  # or nothing that would be lower
            return partial(_compute, _compile(network, options))
        return partial(_compute_lower, _compile(first, options), _compile(network, lower))

    def memory(
        self,
        model: ModelFile,
        target: Target,
        shapes: Collection[Shape],
        sessions: int,
        one_shape: bool = False,
    ) -> MemoryNeeds:
        """Weights, once for all runs in flight, and activations as counted times a constant."""
        graph, weights = model.parse(), len(model.data)
        speed_up(graph)
        counted = max(n * activation_bytes(graph, height, width) for n, height, width in shapes)
        held = OPENVINO_BASE.value + math.ceil(sessions * OPENVINO_COPIES.value * weights)
        run = RUNS[model.spec.is_int8, one_shape]
        return MemoryNeeds(Needs(held, math.ceil(counted * run.value)))

    def reason(self, error: Exception) -> str:
        """The first line of the message that does not only say where in OpenVINO it arose."""
        lines = [line.strip(" -") for line in str(error).splitlines()]
        told = (line for line in lines if line and not line.startswith(PLACES))
        return next(told, first_line(error))

    def release_memory(self) -> None:
        """Have all models return what no run in flight holds."""
        for requests in tuple(_loaded):
            requests.release()


@cache
def _core() -> Any:
    """OpenVINO's devices; no model is cached in files, since no folder is named for them."""
    return ov.Core()


def _compile(graph: Any, options: dict[str, Any]) -> Requests:
    requests = Requests(_core().compile_model(graph, "CPU", options))
    _loaded.add(requests)
    return requests


def _normalisation(graph: Any) -> Any | None:
    """Cut off what comes before the first convolution, as a model of its own.

    `graph` keeps the rest, and takes the results of the first as inputs, in their order. None,
    and nothing is changed, where there is no convolution.
    """
    ahead, behind = set[str](), set[str]()  # nodes that depend on an input; on a convolution
    cut: dict[tuple[str, int], Any] = {}
    for node in graph.get_ordered_ops():
        name, kind, sources = _name(node), node.get_type_name(), node.input_values()
        names = [_name(one.get_node()) for one in sources]
        if kind in HEAVY or any(one in behind for one in names):
            behind.add(name)
            cut |= {
                (n, one.get_index()): one
                for n, one in zip(names, sources, strict=True)
                if n in ahead
            }
        elif kind == "Parameter" or any(one in ahead for one in names):
            ahead.add(name)
    if not behind:
        return None
    first = ov.Model(list(cut.values()), graph.get_parameters(), "normalisation").clone()
    for parameter in graph.get_parameters():
        graph.remove_parameter(parameter)
    inputs = []
    for one in cut.values():
        readers = one.get_target_inputs()
        value = ov.opset13.parameter(one.get_partial_shape(), one.get_element_type())
        for reader in readers:
            if _name(reader.get_node()) in behind:
                reader.replace_source_output(value.output(0))
        inputs.append(value)
    graph.add_parameters(inputs)
    return first


def _name(node: Any) -> str:
    name: str = node.get_name()  # of which a graph has no two
    return name


class Requests:
    """Requests of a model that no run holds just now.

    They are made once for each run in flight: making one takes a lock that another stream's run
    may hold until it ends.
    """

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self._free: list[Any] = []  # its methods are atomic

    @contextmanager
    def one(self) -> Iterator[Any]:
        """A request of the caller's own; what fails is not used again."""
        try:
            request = self._free.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        yield request
        self._free.append(request)

    def release(self) -> None:
        """Let go of what no run holds: requests with their last pixels, and buffers."""
        self._free.clear()
        self.compiled.release_memory()


def _compute(requests: Requests, pixels: Pixels, statistics: Floats, out: Result) -> None:
    with requests.one() as request:
        request.set_tensor(IMAGE, ov.Tensor(pixels, shared_memory=True))
        request.set_tensor(STATISTICS, ov.Tensor(statistics, shared_memory=True))
        request.set_tensor(PROBABILITIES, ov.Tensor(out, shared_memory=True))
        request.infer()


def _compute_lower(
    normalisation: Requests, rest: Requests, pixels: Pixels, statistics: Floats, out: Result
) -> None:
    with normalisation.one() as first, rest.one() as request:
        first.set_tensor(IMAGE, ov.Tensor(pixels, shared_memory=True))
        first.set_tensor(STATISTICS, ov.Tensor(statistics, shared_memory=True))
        first.infer()
        for number in range(len(rest.compiled.inputs)):
            request.set_input_tensor(number, first.get_output_tensor(number))
        request.set_tensor(PROBABILITIES, ov.Tensor(out, shared_memory=True))
        request.infer()
