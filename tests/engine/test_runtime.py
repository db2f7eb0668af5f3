"""Runtimes: what all must do; and of ONNX Runtime, that it survives when memory runs out.

Nothing heavy is imported here: a child that imports this module counts its own memory.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import onnxruntime
import pytest

from engine.errors import JobStopped, OutOfMemory, UsageError
from engine.model.file import ModelFile, open_model
from engine.model.graph.decision import Decision
from engine.runtimes import cuda
from engine.runtimes.base import Caution, DeviceMemory, Session, Target
from engine.runtimes.onnxruntime import CPU as CPU_PROVIDER
from engine.runtimes.onnxruntime import OnnxRuntime
from engine.runtimes.registry import RUNTIMES, open_session, resolve
from engine.runtimes.tensorrt import TENSORRT, TensorRt
from tests import networks
from tests.engine import device_runtime
from tests.engine.runtime_tests import RuntimeTests

STATISTICS = np.float32([[[0, 65535]]])
CPU = Target("onnxruntime", "cpu")


class TestOnnxRuntime(RuntimeTests):
    target = CPU


class TestUnoptimised(RuntimeTests):
    target = replace(CPU, caution=Caution.UNOPTIMISED)


class TestOpenVino(RuntimeTests):
    target = Target("openvino", "cpu")


class TestOnDevice(RuntimeTests):
    """As on a device, by the CPU provider."""

    target = Target("device")


class TestSecondRuntime(RuntimeTests):
    """One in NumPy that this file registers."""

    target = Target("reference")


@pytest.fixture(autouse=True)
def second_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    place = "tests.engine.reference_runtime:ReferenceRuntime"
    monkeypatch.setitem(RUNTIMES, "reference", place)
    monkeypatch.setitem(RUNTIMES, "device", device_runtime.PLACE)


def model_of(folder: Path, widths: tuple[int, ...] = (16, 32, 64, 128)) -> ModelFile:
    network = networks.unet(widths, positive=False)
    return open_model(str(networks.save(folder / "model.onnx", network, networks.spec(network))))


def session_of(model: ModelFile, threads: int = 1, target: Target = CPU) -> Session:
    return open_session(model, "uint16", target, threads)


def pixels(side: int) -> np.ndarray:
    return np.random.default_rng(side).integers(0, 65536, (1, 1, side, side), dtype=np.uint16)


# Fails with a large frame, then runs a smaller one; in a process of its own, for its limit stays.
SURVIVOR = """
import pickle, re, resource, sys
from pathlib import Path
import numpy as np
from engine.errors import OutOfMemory
from tests.engine.test_runtime import STATISTICS, model_of, pixels, session_of

def mapped():
    return int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

runtime = session_of(model_of(Path(sys.argv[1])), threads=2)
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
    expected = session_of(model_of(tmp_path), threads=2).run(pixels(256), STATISTICS)
    assert np.array_equal(np.load(tmp_path / "result.npy"), expected)


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
def test_what_says_memory(error: Exception, is_memory: bool) -> None:
    def compute(*_: Any) -> None:
        raise error

    session = Session(OnnxRuntime(), compute, 1)
    with pytest.raises(JobStopped) as caught:
        session.run(pixels(16), STATISTICS)
    assert isinstance(caught.value, OutOfMemory) == is_memory
    assert caught.value.__cause__ is error and "\n" not in str(caught.value)


class FailingSession:
    """Fails as ONNX Runtime did where no test can make it: on a CUDA device."""

    def __init__(self, error: Exception, real: Any) -> None:
        self.error, self.real = error, real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def run(self, *_: object) -> None:
        raise self.error

    run_with_iobinding = run


def test_a_failing_device_is_not_swapped_for_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

    session = session_of(model_of(tmp_path, (2,)))
    inner = session.compute.args[0]  # type: ignore[attr-defined]
    monkeypatch.setattr(inner, "_sess", FailingSession(EPFail("CUDA failure 700"), inner._sess))
    monkeypatch.setattr(inner, "io_binding", MagicMock(_session=inner._sess))
    inner.io_binding.return_value._session = inner._sess
    with pytest.raises(JobStopped, match="CUDA failure 700"):
        session.run(pixels(16), STATISTICS)
    assert capsys.readouterr() == ("", "")


def test_the_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(OutOfMemory("no memory")))
    assert isinstance(error, OutOfMemory) and str(error) == "no memory"


def test_caution_gives_the_same_values_and_another_build(tmp_path: Path) -> None:
    build = OnnxRuntime().build
    assert build(CPU) == f"onnxruntime {onnxruntime.__version__} CPUExecutionProvider float32"
    careful = replace(CPU, caution=Caution.UNOPTIMISED)
    assert build(careful) == f"{build(CPU)} unoptimised"
    on_cuda = build(replace(careful, device="cuda:0"))
    assert on_cuda.endswith("CUDAExecutionProvider float32 unoptimised")
    frame = pixels(128)
    bold, unoptimised = (
        session_of(model_of(tmp_path), 1, replace(CPU, caution=caution)).run(frame, STATISTICS)
        for caution in Caution
    )
    assert np.abs(bold - unoptimised).max() < 1e-5


@pytest.mark.parametrize(("before", "after"), [({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")])
def test_nothing_is_sent_to_the_makers_of_a_runtime(before: dict[str, str], after: str) -> None:
    code = "import engine.runtimes.onnxruntime, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    clean = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | before, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{after}\n"


class Driver:
    """libcuda.so.1 with two devices, of which `failing` names a call that fails."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.retained, self.current = failing, 0, 0
        self.locked: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            if name == self.failing:
                return 1
            return int(getattr(Calls, name)(self, *arguments) or 0)

        return call


class Calls:
    """The driver's functions as its manual has them; each puts its results where it is told."""

    def cuInit(self: Any, flags: int) -> None: ...

    def cuDeviceGet(self: Any, device: Any, index: int) -> int:
        device._obj.value = index + 10
        return 0 if index < 2 else 101

    def cuDeviceGetUuid(self: Any, uuid: Any, device: Any) -> None:
        uuid._obj[:] = [device.value] * 16

    def cuDevicePrimaryCtxRetain(self: Any, context: Any, device: Any) -> None:
        context._obj.value, self.retained = 7, self.retained + 1

    def cuCtxPushCurrent_v2(self: Any, context: Any) -> None:
        assert context.value == 7
        self.current += 1

    def cuDeviceGetCount(self: Any, count: Any) -> None:
        count._obj.value = 2

    def cuDeviceGetName(self: Any, name: Any, size: Any, device: Any) -> None:
        name.value = f"GPU {device.value}".encode()

    def cuMemHostAlloc(self: Any, place: Any, size: Any, flags: Any) -> None:
        assert self.current == 1 and flags.value == cuda.PORTABLE
        memory = ctypes.create_string_buffer(size.value)
        place._obj.value = ctypes.addressof(memory)
        self.locked[place._obj.value] = memory

    def cuMemFreeHost(self: Any, place: Any) -> None:
        assert self.current == 1
        del self.locked[place.value]

    def cuMemGetInfo_v2(self: Any, free: Any, total: Any) -> None:
        assert self.current == 1
        free._obj.value, total._obj.value = 5 * 2**30, 8 * 2**30

    def cuCtxPopCurrent_v2(self: Any, old: Any) -> None:
        self.current -= 1

    def cuDevicePrimaryCtxRelease_v2(self: Any, device: Any) -> None:
        self.retained -= 1


def test_a_devices_memory_is_what_its_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr(cuda, "driver", lambda: driver)
    memory = OnnxRuntime().device_memory
    assert memory("cuda:1") == DeviceMemory("0b" * 16, 5 * 2**30)
    assert memory("cuda:0") != memory("cuda:1")
    assert memory("cuda:2") is None and memory("cpu") is None
    assert driver.retained == driver.current == 0
    for name in ("cuDeviceGetUuid", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2"):
        driver.failing = name
        assert memory("cuda:0") is None and driver.retained == driver.current == 0
    driver.failing = "cuMemGetInfo_v2"
    assert memory("cuda:0") is None and driver.retained == driver.current == 0
    monkeypatch.setattr(cuda, "driver", lambda: None)
    assert memory("cuda:0") is None


def test_buffers_are_locked_where_the_driver_can(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr(cuda, "driver", lambda: driver)
    array = cuda.locked((2, 3, 4), np.dtype(np.uint16), 1)
    assert array.shape == (2, 3, 4) and array.dtype == np.uint16 and len(driver.locked) == 1
    array[...] = 7
    view = array[0]
    del array
    assert (view == 7).all() and len(driver.locked) == 1
    del view
    assert not driver.locked and driver.retained == driver.current == 0
    for name in ("cuDeviceGet", "cuMemHostAlloc"):
        driver.failing = name
        assert cuda.locked((5,), np.dtype(np.float32), 0).shape == (5,) and not driver.locked
    assert driver.retained == driver.current == 0


@pytest.mark.parametrize(
    ("given", "found"),
    [(None, ("0", "1")), ("", ("0", "1")), ("3, GPU-ab", ("3", "GPU-ab")), ("1,0,7", ("1", "0"))],
)
def test_each_device_can_be_shown_to_a_process(
    monkeypatch: pytest.MonkeyPatch, given: str | None, found: tuple[str, ...]
) -> None:
    monkeypatch.delenv(cuda.VISIBLE, raising=False)
    if given is not None:
        monkeypatch.setenv(cuda.VISIBLE, given)
    driver = Driver()
    monkeypatch.setattr(cuda, "driver", lambda: driver)
    assert cuda.visible_devices() == found
    assert cuda.device_name(1) == "GPU 11"
    driver.failing = "cuDeviceGetName"
    assert cuda.device_name(1) == ""
    driver.failing = "cuDeviceGetCount"
    assert cuda.visible_devices() == ()
    monkeypatch.setattr(cuda, "driver", lambda: None)
    assert cuda.visible_devices() == () and cuda.device_name(0) == ""


def test_what_tensorrt_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runtime, asked = TensorRt(), []
    monkeypatch.setattr(runtime, "open", lambda graph, providers, *_: asked.append(providers))
    targets = [Target("tensorrt", "cuda:1", precision) for precision in runtime.precisions]
    for target in targets:
        runtime.load(b"graph", target, 1, 2)
        assert runtime.engine(b"graph", target) == ""
    folders = []
    for (tensorrt, cuda_, cpu), fp16 in zip(asked, (False, True), strict=True):
        name, options = tensorrt
        assert (name, cuda_[0], cpu) == (TENSORRT, "CUDAExecutionProvider", CPU_PROVIDER)
        assert options["device_id"] == 1 and options["trt_engine_cache_enable"] == 1
        assert ("trt_fp16_enable" in options) == fp16
        # Raw pixels are normalised by these.
        assert {"Sub", "Div"} <= set(options.get("trt_op_types_to_exclude", "Sub,Div").split(","))
        folders.append(Path(options["trt_engine_cache_path"]))
    assert len({*folders, tmp_path}) == 3 and all(one.is_relative_to(tmp_path) for one in folders)
    assert runtime.build(targets[1]).endswith(f"{TENSORRT} float16")
    # What is built is on record by its hash.
    (folders[0] / "a.engine").write_bytes(b"one")
    first = runtime.engine(b"graph", targets[0])
    assert len(first) == 64 and runtime.engine(b"another", targets[0]) == ""
    (folders[0] / "a.engine").write_bytes(b"two")
    assert runtime.engine(b"graph", targets[0]) not in ("", first)


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("cpu", "TensorRT runs on GPUs alone; use --device cuda, or --runtime onnxruntime"),
        (
            "auto",
            "TensorRT finds no CUDA here; .* install '..cuda.' in .* install tensorrt, or use",
        ),
        ("cuda:all", "TensorRT finds no CUDA here"),
    ],
)
def test_tensorrt_without_a_gpu_is_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, told: str
) -> None:
    monkeypatch.setattr(TensorRt, "_works", lambda _: False)
    with pytest.raises(UsageError, match=told):
        resolve(Target("tensorrt", device))


def test_all_devices_are_the_first_of_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxRuntime, "_works", lambda _: True)
    assert resolve(Target("onnxruntime", "cuda:all")).device == "cuda:0"
    assert resolve(Target("onnxruntime", "cuda:3")).device == "cuda:3"


def test_a_graph_is_fixed_to_one_shape(tmp_path: Path) -> None:
    model = model_of(tmp_path, (2, 4))
    session = open_session(model, "uint16", CPU, 1, decision=Decision(1, 0.5), shape=(2, 32, 48))
    found = session.run(np.zeros((2, 1, 32, 48), np.uint16), np.repeat(STATISTICS, 2, axis=0))
    assert found.shape == (2, 2, 32, 48)
    with pytest.raises(JobStopped, match="invalid dimensions for input: image"):
        session.run(np.zeros((1, 1, 32, 48), np.uint16), STATISTICS)


def test_a_driver_without_a_device_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for failing, found in [("", True), ("cuInit", False)]:
        cuda.driver.cache_clear()
        monkeypatch.setattr(cuda.ctypes, "CDLL", lambda _, failing=failing: Driver(failing))
        assert (cuda.driver() is not None) == found
    cuda.driver.cache_clear()
    monkeypatch.undo()
