"""ONNX Runtime: memory that runs out is told apart from other failures, and survived."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import JobStopped, ModelError, OutOfMemory
from engine.model.file import ModelFile, open_model
from engine.runtimes.onnxruntime import OnnxRuntime, runtime_name
from tests import networks

STATISTICS = np.float32([[[0, 65535]]])


def model_of(folder: Path, widths: tuple[int, ...] = (16, 32, 64, 128)) -> ModelFile:
    network = networks.unet(widths, positive=False)
    return open_model(str(networks.save(folder / "model.onnx", network, networks.spec(network))))


def pixels(side: int) -> np.ndarray:
    return np.random.default_rng(side).integers(0, 65536, (1, 1, side, side), dtype=np.uint16)


# Fails with a large frame, then runs a smaller one; in a process of its own, for its limit stays.
SURVIVOR = """
import pickle, re, resource, sys
from pathlib import Path
import numpy as np
from engine.errors import OutOfMemory
from tests.engine.test_runtime import STATISTICS, model_of, pixels
from engine.runtimes.onnxruntime import OnnxRuntime

def mapped():
    return int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

runtime = OnnxRuntime(model_of(Path(sys.argv[1])), "uint16", "cpu", 2)
runtime.run(pixels(64), STATISTICS)
before = mapped()
limit = before + 400 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
failures = []
for side in (4096, 2048, 4096):
    try:
        runtime.run(pixels(side), STATISTICS)
    except OutOfMemory as error:
        failures.append(str(error))
held = mapped() - before
np.save(Path(sys.argv[1]) / "result.npy", runtime.run(pixels(256), STATISTICS))
Path(sys.argv[1], "told.pickle").write_bytes(pickle.dumps((failures, held)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc")
def test_after_too_large_a_frame_a_smaller_one_is_right(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SURVIVOR, str(tmp_path)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    failures, held = pickle.loads((tmp_path / "told.pickle").read_bytes())
    assert [f.partition(";")[0] for f in failures] == [
        f"ONNX Runtime found no memory for a tile of {side} x {side} px"
        for side in (4096, 2048, 4096)
    ]
    assert all("smaller --tile" in f and "\n" not in f for f in failures)
    assert held < 100 * 2**20  # what the failed runs had gathered went back
    expected = OnnxRuntime(model_of(tmp_path), "uint16", "cpu", 2).run(pixels(256), STATISTICS)
    assert np.array_equal(np.load(tmp_path / "result.npy"), expected)


class FailingSession:
    """Fails as ONNX Runtime did where no test can make it: on a CUDA device."""

    def __init__(self, error: Exception, real: Any = None) -> None:
        self.error, self.real = error, real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def run(self, *_: object) -> None:
        raise self.error


ARENA = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running "
    "Conv node. Name:'c1' Status Message: bfc_arena.cc:376 void* "
    "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) "
)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (RuntimeError(ARENA + "Failed to allocate memory for requested buffer of size 939"), True),
        (
            RuntimeError(ARENA + "Available memory of 12 is smaller than requested bytes of 40"),
            True,
        ),
        (RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc(&p, size);"), True),
        (RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ;"), True),
        (RuntimeError("CUDNN failure 2: CUDNN_STATUS_ALLOC_FAILED ; GPU=0 ;"), True),
        (RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("Exception during initialization: std::bad_alloc"), True),
        (MemoryError("Unable to allocate 8.00 GiB for an array"), True),
        (RuntimeError("CUDA failure 700: an illegal memory access was encountered"), False),
        (RuntimeError("CUDNN failure 3000: CUDNN_STATUS_NOT_SUPPORTED"), False),
        (RuntimeError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions"), False),
    ],
)
def test_what_says_memory(tmp_path: Path, error: Exception, is_memory: bool) -> None:
    runtime = OnnxRuntime(model_of(tmp_path, (2,)), "uint16", "cpu", 1)
    runtime._session = FailingSession(error)
    with pytest.raises(JobStopped) as caught:
        runtime.run(pixels(16), STATISTICS)
    assert isinstance(caught.value, OutOfMemory) == is_memory
    assert caught.value.__cause__ is error and "\n" not in str(caught.value)


def test_a_failing_device_is_not_swapped_for_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

    runtime = OnnxRuntime(model_of(tmp_path, (2,)), "uint16", "cpu", 1)
    inner = runtime._session._sess
    runtime._session._sess = FailingSession(EPFail("CUDA failure 700"), inner)
    with pytest.raises(JobStopped, match="CUDA failure 700"):
        runtime.run(pixels(16), STATISTICS)
    assert capsys.readouterr() == ("", "")


def test_the_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(OutOfMemory("no memory")))
    assert isinstance(error, OutOfMemory) and str(error) == "no memory"


def test_caution_gives_the_same_values_and_another_name(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    bold, careful = (OnnxRuntime(model, "uint16", "cpu", 1, caution) for caution in (0, 1))
    assert bold.name == runtime_name("cpu") and careful.name == runtime_name("cpu", 1)
    assert careful.name == f"{bold.name} unoptimised"
    assert runtime_name("cuda:0", 1).endswith("CUDAExecutionProvider float32 unoptimised")
    frame = pixels(128)
    difference = bold.run(frame, STATISTICS) - careful.run(frame, STATISTICS)
    assert np.abs(difference).max() < 1e-5


def test_a_model_that_the_runtime_refuses_is_one_sentence(tmp_path: Path) -> None:
    network = networks.unet((2,))
    network.graph.node[-1].op_type = "NoSuchOperator"
    path = networks.save(tmp_path / "model.onnx", network, networks.spec(stride=1))
    with pytest.raises(ModelError, match="ONNX Runtime refuses it") as caught:
        OnnxRuntime(open_model(str(path)), "uint16", "cpu", 1)
    assert "\n" not in str(caught.value)
