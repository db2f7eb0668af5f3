"""ONNX Runtime on the CPU or on CUDA, in float32."""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import suppress
from functools import cache, partial
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from engine.errors import UsageError, install_command
from engine.model.file import ModelFile
from engine.model.graph.faster import speed_up
from engine.model.graph.memory import activation_bytes
from engine.model.spec import IMAGE, PROBABILITIES, STATISTICS
from engine.runtimes import cuda
from engine.runtimes.base import (
    ALL_DEVICES,
    DEVICE_RUNS,
    Caution,
    Compute,
    Constant,
    DeviceMemory,
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
from engine.runtimes.slots import Slots

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
QUIET = 4  # of ONNX Runtime's log: fatal alone; what else it says is in its exceptions
SHARED = "session.use_env_allocators"
TYPES: dict[Precision, str] = {"fp32": "float32", "fp16": "float16"}

# What is in the message when it was memory: of ONNX Runtime's arenas, C++, CUDA, cuBLAS and
# cuDNN. Its exceptions do not tell; on the CPU the arena's is a plain Fail.
MEMORY_SIGNS = (
    "failed to allocate", "bad_alloc", "bad allocation", "out of memory", "cuda failure 2:",
    "alloc_failed", "allocation_failed", "available memory of", "cannot allocate memory",
)  # fmt: skip

CHANNEL_GROUP = 16  # channels that lie together in memory, with AVX-512; else 8

GPU = "chosen, no GPU was at hand: `benchmarks/gpu.sh` measures it"
SESSION_COPIES = Constant(
    2.2, "of the model file", "weights of a session on the CPU, and their prepacked form",
    "`python -m benchmarks.footprint`",
)  # fmt: skip
ARENA = Constant(
    1.9, "of the counted bytes", "activations of a run on the CPU, as its arena holds them",
    "`python -m benchmarks.arena`",
)  # fmt: skip
ARENA_JOINED = Constant(
    4.0, "of the counted bytes", "the same where a graph still concatenates, as dense networks do",
    "13 such networks, once",
)  # fmt: skip
ARENA_INT8 = Constant(
    1.7, "of the counted bytes", "the same of a model in int8, whose values are counted as float32",
    "`python -m benchmarks.arena`",
)  # fmt: skip
CUDA_HOST = Constant(1536 * 2**20, "bytes", "libraries of CUDA in the host's memory", GPU)
CUDA_LIBRARIES = Constant(512 * 2**20, "bytes", "what they take of the device's", GPU)
CUDA_ARENA = Constant(
    4.0, "of the counted bytes", "activations and workspaces of a run on the device", GPU
)


class OnnxRuntime(Runtime):
    """See `engine.runtimes.base.Runtime`."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    precisions: tuple[Precision, ...] = ("fp32",)
    cautions: tuple[Caution, ...] = (Caution.OPTIMISED, Caution.UNOPTIMISED)
    memory_signs = MEMORY_SIGNS
    way_out = f"{install_command('cuda')}, or use --device cpu"

    def resolve_device(self, device: str) -> str:
        """ "auto", "cpu", "cuda", "cuda:N" or "cuda:all" as "cpu" or "cuda:N".

        Where all are asked for, each is the first that a process of its own sees.
        """
        if device == "cpu" or (device == "auto" and not self._works()):
            return "cpu"
        kind, _, index = ("cuda" if device in ("auto", ALL_DEVICES) else device).partition(":")
        if kind != "cuda" or not (index or "0").isdecimal():
            raise UsageError(
                f"device {device!r} is not known; use auto, cpu, cuda, cuda:N or {ALL_DEVICES}"
            )
        if not self._works():
            raise UsageError(
                f"device {device}: {self.title} finds no CUDA here; check the driver, "
                f"{self.way_out}"
            )
        return f"cuda:{index or 0}"

    def providers(self, target: Target) -> list[Any]:
        """Execution providers with their options, the one that is wanted first."""
        return [CPU] if target.device == "cpu" else [(CUDA, _cuda_options(target)), CPU]

    def _works(self) -> bool:
        return has_provider(CUDA)

    def build(self, target: Target) -> str:
        """Version, provider, precision; "unoptimised" where the graph is run as it is written."""
        provider, precision = _first(self.providers(target)), TYPES[target.precision]
        build = f"onnxruntime {ort.__version__} {provider} {precision}"
        return f"{build} unoptimised" if target.caution else build

    def load(self, graph: bytes, target: Target, threads: int, in_flight: int) -> Compute:
        """An inference session. Unoptimised, cuDNN takes its default algorithm as well.

        On the CPU, runs in flight need nothing of their own and use the caller's buffers.
        """
        return self.open(graph, self.providers(target), target, threads)

    def open(self, graph: bytes, providers: list[Any], target: Target, threads: int) -> Compute:
        """A session with these providers, of which the first must be had."""
        options = _options(threads)
        # Of the kernels that add up in an order that changes from run to run, there are others.
        options.use_deterministic_compute = target.is_on_device
        # Patterns pre-plan memory for each new shape: the arena grew more, at no gain in speed
        # (docs/memory.md).
        options.enable_mem_pattern = False
        if target.caution:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        _share_cpu_arena()
        # Its fallback would go on with the CPU after a failure of CUDA, with other results under
        # the same name, and tell it on stdout.
        session = ort.InferenceSession(graph, options, providers=providers, enable_fallback=0)
        used, wanted = session.get_providers()[0], _first(providers)
        if used != wanted:
            raise ValueError(f"asked for {wanted}, it chose {used}")
        compute = partial(_compute, session)
        if not target.is_on_device:
            return compute
        return Slots(compute, DEVICE_RUNS, partial(cuda.locked, index=index_of(target)))

    def memory(
        self,
        model: ModelFile,
        target: Target,
        shapes: Collection[Shape],
        sessions: int,
        one_shape: bool = False,
    ) -> MemoryNeeds:
        """Weights, and activations as counted times what arenas take beyond that."""
        graph, weights = model.parse(), len(model.data)
        if target.changes_graphs:
            speed_up(graph)
        group = 1 if target.is_on_device else CHANNEL_GROUP
        counted = max(n * activation_bytes(graph, h, w, group) for n, h, w in shapes)
        if not target.is_on_device:
            joins = any(node.op_type == "Concat" for node in graph.graph.node)
            arena = ARENA_INT8 if model.spec.is_int8 else ARENA_JOINED if joins else ARENA
            return MemoryNeeds(
                Needs(
                    math.ceil(sessions * SESSION_COPIES.value * weights),
                    math.ceil(counted * arena.value),
                )
            )
        # Pixels and probabilities, as the buffers of a run hold them.
        planes = len(model.spec.channels) + model.spec.n_outputs
        buffers = DEVICE_RUNS * sessions * 4 * planes * max(math.prod(shape) for shape in shapes)
        return MemoryNeeds(
            Needs(CUDA_HOST.value + buffers),
            Needs(CUDA_LIBRARIES.value + sessions * weights, math.ceil(counted * CUDA_ARENA.value)),
        )

    def device_memory(self, device: str) -> DeviceMemory | None:
        """What CUDA's driver says."""
        return None if device == "cpu" else cuda.device_memory(index_of(Target(device=device)))

    def release_memory(self) -> None:
        """Shrink the CPU arena of all sessions, which keeps what it ever held."""
        options = ort.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        # Best effort: where there is no memory even for this, the error on its way says so.
        with suppress(Exception):
            _identity(CPU).run(None, {"x": np.zeros(1, np.float32)}, options)


def _compute(session: Any, pixels: Pixels, statistics: Floats, out: Result) -> None:
    """Run a session on bound buffers: it reads and writes the caller's own."""
    binding = session.io_binding()
    binding.bind_cpu_input(IMAGE, pixels)
    binding.bind_cpu_input(STATISTICS, statistics)
    binding.bind_output(PROBABILITIES, "cpu", 0, out.dtype.type, out.shape, out.ctypes.data)
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = QUIET
    options.add_session_config_entry(SHARED, "1")
    return options


@cache
def _share_cpu_arena() -> None:
    """One arena for the CPU memory of all sessions, which grows by what is asked for.

    The default doubles its extensions, and what it ends at depends on the order of requests: a
    plan could not tell it (docs/memory.md).
    """
    place = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    as_requested = {
        "max_mem": 0,  # no limit
        "arena_extend_strategy": 1,  # kSameAsRequested
        "initial_chunk_size_bytes": -1,
        "max_dead_bytes_per_chunk": -1,
    }
    ort.create_and_register_allocator(place, ort.OrtArenaCfg(as_requested))


def _first(providers: list[Any]) -> str:
    name: str = providers[0] if isinstance(providers[0], str) else providers[0][0]
    return name


def index_of(target: Target) -> int:
    """Number of a device."""
    return int(target.device.partition(":")[2])


def _cuda_options(target: Target) -> dict[str, Any]:
    return {
        "device_id": index_of(target),
        # TF32 keeps 10 bits of mantissa: labels would differ from the CPU's.
        "use_tf32": 0,
        # An exhaustive search times the algorithms: what it takes, and so the last bits of a
        # result, may differ from process to process. With caution: the one that is always there.
        "cudnn_conv_algo_search": "DEFAULT" if target.caution else "HEURISTIC",
        # As on the CPU: the default doubles what it takes.
        "arena_extend_strategy": "kSameAsRequested",
    }


def _identity(provider: str) -> Any:
    """A session that does nothing."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = model.SerializeToString()
    return ort.InferenceSession(data, _options(1), providers=[provider], enable_fallback=0)


@cache
def has_provider(provider: str) -> bool:
    """Whether a provider of NVIDIA's has driver, device and libraries."""
    if provider not in ort.get_available_providers() or cuda.driver() is None:
        return False
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds CUDA libraries installed by pip
    # Driver and provider may be there without the CUDA libraries: only a session tells.
    try:
        session = _identity(provider)
    except Exception:  # no device or no libraries: all mean the same here
        return False
    return bool(session.get_providers()[0] == provider)
