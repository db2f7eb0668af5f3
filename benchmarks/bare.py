"""A graph by a runtime with nothing around it: fed from memory, results thrown away.

It is what a job is held against, so it may do what a job does not: a session for one shape,
batches, pixels that are float32 already, and the whole graph in a lower precision.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from engine.model.spec import IMAGE, STATISTICS

Feed = Mapping[str, NDArray[Any]]  # a graph's inputs
Passing = Callable[[], None]  # takes all feeds through the graph
OV_TYPES = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
SIDE = 2048  # of the matrices by which the machine is measured


@dataclass(frozen=True)
class Setting:
    """How a runtime is run; streams x threads are the cores that there are."""

    streams: int
    threads: int  # of each stream
    batch: int  # frames

    def __str__(self) -> str:
        return f"{self.streams} x {self.threads} threads, batches of {self.batch}"


def settings(cores: int, batches: Iterable[int] = (1, 4)) -> list[Setting]:
    """One run on all cores, or one for each core; batches of several sizes."""
    return [
        Setting(streams, cores // streams, batch)
        for streams in sorted({1, cores})
        for batch in batches
    ]


def feeds(
    frames: Sequence[NDArray[Any]], statistics: Sequence[NDArray[np.float32]], batch: int
) -> list[Feed]:
    """Frames (1, C, H, W) and their statistics (C, 2) as batches of float32; a rest is left out."""
    whole = len(frames) // batch * batch
    return [
        {
            IMAGE: np.concatenate(frames[n : n + batch]).astype(np.float32),
            STATISTICS: np.stack(statistics[n : n + batch]),
        }
        for n in range(0, whole, batch)
    ]


def passing(
    graph: bytes, runtime: str, precision: str, device: str, setting: Setting, given: list[Feed]
) -> Passing:
    """Make a graph ready for the shapes of `given`; what comes back runs it on all of these."""
    make = _onnxruntime if runtime == "onnxruntime" else _openvino
    return make(graph, precision, device, setting, given)


def _onnxruntime(
    graph: bytes, precision: str, device: str, setting: Setting, given: list[Feed]
) -> Passing:
    options = ort.SessionOptions()
    options.intra_op_num_threads = setting.threads
    options.log_severity_level = 4  # fatal alone
    kind, _, index = device.partition(":")
    where = (kind, int(index or 0))
    provider: Any = "CPUExecutionProvider"
    if kind == "cuda":
        ort.preload_dlls()
        provider = ("CUDAExecutionProvider", {"device_id": where[1], "use_tf32": 0})
    session = ort.InferenceSession(graph, options, providers=[provider])
    bindings = []
    for feed in given:
        binding = session.io_binding()
        for name, values in feed.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(values, *where))
        for output in session.get_outputs():
            binding.bind_output(output.name, *where)
        bindings.append(binding)

    def run(mine: Iterable[Any]) -> None:
        for binding in mine:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

    shares = [bindings[n :: setting.streams] for n in range(setting.streams)]
    pool = ThreadPoolExecutor(setting.streams)
    return lambda: [*pool.map(run, shares)].clear()


def _openvino(
    graph: bytes, precision: str, device: str, setting: Setting, given: list[Feed]
) -> Passing:
    from engine.runtimes.openvino import ov  # without its telemetry

    core = ov.Core()
    model = core.read_model(graph, b"")
    model.reshape({name: list(values.shape) for name, values in given[0].items()})
    compiled = core.compile_model(model, device.upper(), {
        "INFERENCE_NUM_THREADS": setting.streams * setting.threads,
        "NUM_STREAMS": setting.streams, "INFERENCE_PRECISION_HINT": OV_TYPES[precision],
    })  # fmt: skip
    queue = ov.AsyncInferQueue(compiled, setting.streams)
    tensors = [{name: ov.Tensor(v, shared_memory=True) for name, v in f.items()} for f in given]

    def run() -> None:
        for one in tensors:
            queue.start_async(one)
        queue.wait_all()

    return run


# -- arithmetic ------------------------------------------------------------------------------------


def gflop(model: onnx.ModelProto, height: int, width: int) -> float:
    """1e9 operations of a network's convolutions for a frame; multiply and add are two."""
    fixed = onnx.ModelProto.FromString(model.SerializeToString())
    for value in fixed.graph.input:
        sizes = value.type.tensor_type.shape.dim
        for size, given in zip(sizes, (1, sizes[1].dim_value, height, width), strict=False):
            if not size.dim_value:
                size.dim_value = given
    graph = shape_inference.infer_shapes(fixed, data_prop=True).graph
    known = itertools.chain(graph.value_info, graph.input, graph.output)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in known}
    weights = {w.name: w.dims for w in graph.initializer}
    total = 0
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            place = node.output[0] if node.op_type == "Conv" else node.input[0]
            kernel = weights[node.input[1]]  # (out, in / groups, k, k); of the other (in, out, ...)
            _, _, rows, columns = shapes[place]
            total += 2 * rows * columns * int(np.prod(kernel))
    return total / 1e9


def multiplication(side: int = SIDE, half: bool = False) -> tuple[bytes, Feed]:
    """A graph that multiplies a matrix (2 side, side) with a constant (side, side); its input."""
    rng = np.random.default_rng(0)
    dtype = np.float16 if half else np.float32
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    constant = numpy_helper.from_array(rng.random((side, side), np.float32).astype(dtype), "b")
    a, y = (helper.make_tensor_value_info(name, kind, [2 * side, side]) for name in "ay")
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["y"])], "gemm", [a], [y],
                              [constant])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString(), {"a": rng.random((2 * side, side), np.float32).astype(dtype)}


def multiplication_gflop(side: int = SIDE) -> float:
    """1e9 operations of `multiplication`."""
    return 4 * side**3 / 1e9
