"""ONNX Runtime on the CPU or on CUDA, in float32."""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import suppress
from functools import cache, partial
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from engine.errors import ModelError, UsageError
from engine.model.file import ModelFile
from engine.model.graph.memory import activation_bytes
from engine.model.graph.tensors import accept_pixels
from engine.model.spec import IMAGE, PROBABILITIES, STATISTICS
from engine.runtimes import cuda
from engine.runtimes.base import (
    Caution,
    Compute,
    Constant,
    DeviceMemory,
    MemoryNeeds,
    Needs,
    Precision,
    Runtime,
    Target,
)

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
QUIET = 4  # of ONNX Runtime's log: fatal alone; what else it says is in its exceptions
SHARED = "session.use_env_allocators"

# What is in the message when it was memory: of ONNX Runtime's arenas, C++, CUDA, cuBLAS and
# cuDNN. Its exceptions do not tell; on the CPU the arena's is a plain Fail.
MEMORY_SIGNS = (
    "failed to allocate", "bad_alloc", "bad allocation", "out of memory", "cuda failure 2:",
    "alloc_failed", "allocation_failed", "available memory of", "cannot allocate memory",
)  # fmt: skip

GPU = "chosen, no GPU was at hand: `benchmarks/gpu.sh` measures it"
SESSION_COPIES = Constant(
    2, "of the model file", "weights of a session on the CPU, and their prepacked form",
    "`python -m benchmarks.footprint`",
)  # fmt: skip
ARENA = Constant(
    2.4, "of the counted bytes", "activations of a run on the CPU, as its arena holds them",
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
    cautions = (Caution.OPTIMISED, Caution.UNOPTIMISED)

    def resolve_device(self, device: str) -> str:
        """ "auto", "cpu", "cuda" or "cuda:N" as "cpu" or "cuda:N"."""
        kind, _, index = device.partition(":")
        if device == "cpu" or (device == "auto" and not _cuda_works()):
            return "cpu"
        if device != "auto" and (kind != "cuda" or not (index or "0").isdecimal()):
            raise UsageError(f"device {device!r} is not known; use auto, cpu, cuda or cuda:N")
        if not _cuda_works():
            raise UsageError(
                f"device {device}: ONNX Runtime finds no CUDA here; check the driver, "
                "install stackseg[cuda], or use --device cpu"
            )
        return f"cuda:{index or 0}"

    def build(self, target: Target) -> str:
        """Version, provider, precision; "unoptimised" where the graph is run as it is written."""
        provider = CPU if target.device == "cpu" else CUDA
        build = f"onnxruntime {ort.__version__} {provider} float32"
        return f"{build} unoptimised" if target.caution else build

    def load(
        self, model: ModelFile, dtype: str, target: Target, threads: int, in_flight: int
    ) -> Compute:
        """An inference session. Unoptimised, cuDNN takes its default algorithm as well.

        Runs in flight need nothing of their own.
        """
        options = _options(threads)
        # Patterns pre-plan memory for each new shape: the arena grew more, at no gain in speed
        # (docs/memory.md).
        options.enable_mem_pattern = False
        if target.caution:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        _share_cpu_arena()
        proto = model.parse()
        accept_pixels(proto, dtype)
        graph = proto.SerializeToString()
        del proto  # weights are held often enough
        # Its fallback would go on with the CPU after a failure of CUDA, with other results under
        # the same name, and tell it on stdout.
        session = ort.InferenceSession(
            graph, options, providers=_providers(target), enable_fallback=0
        )
        used, wanted = session.get_providers()[0], CPU if target.device == "cpu" else CUDA
        if used != wanted:
            raise ModelError(f"{model.path}: asked for {wanted}, but ONNX Runtime chose {used}")
        return partial(_compute, session)

    def memory(
        self, model: ModelFile, target: Target, shapes: Collection[tuple[int, int, int]],
        sessions: int,
    ) -> MemoryNeeds:  # fmt: skip
        """Weights, and activations as counted times what arenas take beyond that."""
        graph, weights = model.parse(), len(model.data)
        counted = max(n * activation_bytes(graph, height, width) for n, height, width in shapes)
        if target.device == "cpu":
            return MemoryNeeds(
                Needs(sessions * SESSION_COPIES.value * weights, math.ceil(counted * ARENA.value))
            )
        result = 4 * model.spec.n_outputs * max(math.prod(shape) for shape in shapes)
        return MemoryNeeds(
            Needs(CUDA_HOST.value, result),
            Needs(CUDA_LIBRARIES.value + sessions * weights, math.ceil(counted * CUDA_ARENA.value)),
        )

    def is_memory_error(self, error: Exception) -> bool:
        """By its type, or by what it says."""
        text = str(error).lower()
        return isinstance(error, MemoryError) or any(sign in text for sign in MEMORY_SIGNS)

    def device_memory(self, device: str) -> DeviceMemory | None:
        """What CUDA's driver says."""
        return None if device == "cpu" else cuda.device_memory(int(device.partition(":")[2]))

    def release_memory(self) -> None:
        """Shrink the CPU arena of all sessions, which keeps what it ever held."""
        options = ort.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        # Best effort: where there is no memory even for this, the error on its way says so.
        with suppress(Exception):
            _identity(CPU).run(None, {"x": np.zeros(1, np.float32)}, options)


def _compute(
    session: Any, pixels: NDArray[Any], statistics: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Run a session on bound buffers: it reads and writes the caller's own."""
    binding = session.io_binding()
    binding.bind_cpu_input(IMAGE, pixels)
    binding.bind_cpu_input(STATISTICS, statistics)
    binding.bind_output(PROBABILITIES, "cpu", 0, np.float32, out.shape, out.ctypes.data)
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


def _providers(target: Target) -> list[Any]:
    if target.device == "cpu":
        return [CPU]
    options = {
        "device_id": int(target.device.partition(":")[2]),
        # TF32 keeps 10 bits of mantissa: labels would differ from the CPU's.
        "use_tf32": 0,
        # An exhaustive search times the algorithms: what it takes, and so the last bits of a
        # result, may differ from process to process. With caution: the one that is always there.
        "cudnn_conv_algo_search": "DEFAULT" if target.caution else "HEURISTIC",
        # As on the CPU: the default doubles what it takes.
        "arena_extend_strategy": "kSameAsRequested",
    }
    return [(CUDA, options), CPU]


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
def _cuda_works() -> bool:
    if CUDA not in ort.get_available_providers() or cuda.driver() is None:
        return False
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds CUDA libraries installed by pip
    # Driver and provider may be there without the CUDA libraries: only a session tells.
    try:
        session = _identity(CUDA)
    except Exception:  # no device or no libraries: all mean the same here
        return False
    return bool(session.get_providers()[0] == CUDA)
