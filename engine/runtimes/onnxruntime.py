"""ONNX Runtime on the CPU or on CUDA, in float32."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from engine.errors import JobStopped, ModelError, UsageError
from engine.graph.pixels import accept_pixels
from engine.model import IMAGE, PROBABILITIES, STATISTICS
from engine.model_file import ModelFile

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


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

    def __init__(self, model: ModelFile, dtype: str, device: str, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Patterns pre-plan memory for each new shape: the arena grew more, at no gain in speed
        # (docs/memory.md).
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.use_env_allocators", "1")
        _share_cpu_arena()
        proto = model.parse()
        accept_pixels(proto, dtype)
        graph = proto.SerializeToString()
        del proto  # weights are held often enough
        providers = _providers(device)
        try:
            self._session = ort.InferenceSession(graph, options, providers=providers)
        except Exception as error:  # the runtime's own exceptions share no base class
            raise ModelError(
                f"{model.path}: ONNX Runtime refuses it ({_first_line(error)})"
            ) from error
        used = self._session.get_providers()[0]
        wanted = CPU if device == "cpu" else CUDA
        if used != wanted:
            raise ModelError(f"{model.path}: asked for {wanted}, but ONNX Runtime chose {used}")
        self.name = runtime_name(device)

    def run(self, pixels: NDArray[Any], statistics: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `engine.runtimes.base.Runtime`."""
        feeds = {IMAGE: pixels, STATISTICS: statistics}
        try:
            result: NDArray[np.float32] = self._session.run([PROBABILITIES], feeds)[0]
        except Exception as error:
            # Pixels cannot do this: it is memory, the device or the model, and no frame's fault.
            raise JobStopped(
                f"ONNX Runtime failed ({_first_line(error)}); give fewer --workers or a smaller "
                "--tile if it was memory, and run the same command again to go on"
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


def runtime_name(device: str) -> str:
    """What a job records of its runtime: build, provider, precision."""
    provider = CPU if device == "cpu" else CUDA
    return f"onnxruntime {ort.__version__} {provider} float32"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _providers(device: str) -> list[Any]:
    if device == "cpu":
        return [CPU]
    # TF32 keeps 10 bits of mantissa: labels would differ from the CPU's.
    options = {"device_id": int(device.partition(":")[2]), "use_tf32": 0}
    return [(CUDA, options), CPU]


def _cuda_works() -> bool:
    if CUDA not in ort.get_available_providers() or not _has_driver():
        return False
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds CUDA libraries installed by pip
    # Driver and provider may be there without the CUDA libraries: only a session tells.
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "probe",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    probe = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(probe.SerializeToString(), options, providers=[CUDA])
    except Exception:  # no device or no libraries: all mean the same here
        return False
    return bool(session.get_providers()[0] == CUDA)


def _has_driver() -> bool:
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
