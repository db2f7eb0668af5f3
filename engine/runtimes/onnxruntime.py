"""ONNX Runtime on the CPU or on CUDA, in float32."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from engine.errors import JobStopped, ModelError, OutOfMemory, UsageError, first_line
from engine.model.file import ModelFile
from engine.model.graph.tensors import accept_pixels
from engine.model.spec import IMAGE, PROBABILITIES, STATISTICS
from engine.model.statistics import normalisable

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"

QUIET = 4  # of ONNX Runtime's log: fatal alone; what else it says is in its exceptions
OPTIMISED, UNOPTIMISED = (
    0,
    1,
)  # how cautiously a session is made; `engine.inference.device_check` chooses

# What is in the message when it was memory: of ONNX Runtime's arenas, C++, CUDA, cuBLAS and
# cuDNN. Its exceptions do not tell; on the CPU the arena's is a plain Fail.
MEMORY_SIGNS = (
    "failed to allocate", "bad_alloc", "bad allocation", "out of memory", "cuda failure 2:",
    "alloc_failed", "allocation_failed", "available memory of", "cannot allocate memory",
)  # fmt: skip


def resolve_device(device: str) -> str:
    """Turn "auto", "cpu", "cuda" or "cuda:N" into the device a job records: never "auto"."""
    if device == "auto":
        return "cuda:0" if _cuda_works() else "cpu"
    if device == "cpu":
        return "cpu"
    kind, _, index = device.partition(":")
    if kind != "cuda" or not (index or "0").isdecimal():
        raise UsageError(f"device {device!r} is not known; use auto, cpu, cuda or cuda:N")
    if not _cuda_works():
        raise UsageError(
            f"device {device}: ONNX Runtime finds no CUDA here; check the driver, "
            "install stackseg[cuda], or use --device cpu"
        )
    return f"cuda:{index or 0}"


class OnnxRuntime:
    """One session of a model for pixels of one type."""

    def __init__(
        self, model: ModelFile, dtype: str, device: str, threads: int, caution: int = OPTIMISED
    ) -> None:
        """Make the session. `device` is resolved: "cpu" or "cuda:N".

        With a `caution` of 1 the graph is run as it is written: no node is fused or folded, and on
        CUDA cuDNN takes its default algorithm. Raises ModelError where ONNX Runtime refuses the
        model, OutOfMemory where it finds no memory for it.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = QUIET
        # Patterns pre-plan memory for each new shape: the arena grew more, at no gain in speed
        # (docs/memory.md).
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.use_env_allocators", "1")
        if caution:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        _share_cpu_arena()
        proto = model.parse()
        accept_pixels(proto, dtype)
        graph = proto.SerializeToString()
        del proto  # weights are held often enough
        providers = _providers(device, caution)
        try:
            # Its fallback would go on with the CPU after a failure of CUDA, with other results
            # under the same name, and tell it on stdout.
            self._session = ort.InferenceSession(
                graph, options, providers=providers, enable_fallback=0
            )
        except Exception as error:  # the runtime's own exceptions share no base class
            if _is_memory(error):
                raise OutOfMemory(
                    f"{model.path}: ONNX Runtime found no memory for the model; free some, or give "
                    "fewer --workers, and run the same command again"
                ) from error
            raise ModelError(
                f"{model.path}: ONNX Runtime refuses it ({first_line(error)})"
            ) from error
        used = self._session.get_providers()[0]
        wanted = CPU if device == "cpu" else CUDA
        if used != wanted:
            raise ModelError(f"{model.path}: asked for {wanted}, but ONNX Runtime chose {used}")
        self.name = runtime_name(device, caution)

    def run(self, pixels: NDArray[Any], statistics: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `engine.runtimes.base.Runtime`."""
        divisors = np.stack([normalisable(channels) for channels in statistics])
        feeds = {IMAGE: pixels, STATISTICS: divisors}
        try:
            result: NDArray[np.float32] = self._session.run([PROBABILITIES], feeds)[0]
        except Exception as error:
            if _is_memory(error):
                give_back_memory()  # what the failed run had gathered is of no use to smaller ones
                raise OutOfMemory(
                    f"ONNX Runtime found no memory for a tile of {pixels.shape[2]} x "
                    f"{pixels.shape[3]} px; give fewer --workers or a smaller --tile, and run "
                    "the same command again to go on"
                ) from error
            # Pixels cannot do this: it is the device or the model, and no frame's fault.
            raise JobStopped(
                f"ONNX Runtime failed ({first_line(error)}); run the same command again to go on, "
                "with --device cpu if it fails once more"
            ) from error
        return result


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


def give_back_memory() -> None:
    """Return to the system what no run in flight holds of the CPU arena of all sessions.

    The arena keeps what it ever held: after one large tile, that is memory which nobody else gets.
    """
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    # Best effort: where there is no memory even for this, the error on its way says so.
    with suppress(Exception):
        _identity(CPU, shared=True).run(None, {"x": np.zeros(1, np.float32)}, options)


def runtime_name(device: str, caution: int = OPTIMISED) -> str:
    """What a job records of its runtime: build, provider, precision, caution."""
    provider = CPU if device == "cpu" else CUDA
    name = f"onnxruntime {ort.__version__} {provider} float32"
    return f"{name} unoptimised" if caution else name


def _is_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in MEMORY_SIGNS)


def _providers(device: str, caution: int) -> list[Any]:
    if device == "cpu":
        return [CPU]
    # TF32 keeps 10 bits of mantissa: labels would differ from the CPU's.
    options: dict[str, Any] = {"device_id": int(device.partition(":")[2]), "use_tf32": 0}
    # An exhaustive search times the algorithms: what it takes, and so the last bits of a result,
    # may differ from process to process. With caution: none but the one that is always there.
    options["cudnn_conv_algo_search"] = "DEFAULT" if caution else "HEURISTIC"
    return [(CUDA, options), CPU]


def _identity(provider: str, *, shared: bool = False) -> Any:
    """A session that does nothing."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = QUIET
    if shared:
        options.add_session_config_entry("session.use_env_allocators", "1")
    data = model.SerializeToString()
    return ort.InferenceSession(data, options, providers=[provider], enable_fallback=0)


def _cuda_works() -> bool:
    if CUDA not in ort.get_available_providers() or not _has_driver():
        return False
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds CUDA libraries installed by pip
    # Driver and provider may be there without the CUDA libraries: only a session tells.
    try:
        session = _identity(CUDA)
    except Exception:  # no device or no libraries: all mean the same here
        return False
    return bool(session.get_providers()[0] == CUDA)


def _has_driver() -> bool:
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
