"""Peak of ONNX Runtime's arena over the counted activations: the table in docs/memory.md.

    python -m benchmarks.arena [--device cuda:N]

Each row is a process of its own. On the CPU strategy 0 doubles its extensions (the runtime's
default), 1 grows as requested (what the engine sets). Three figures: after 1, 4 and 8 runs of each
thread. On CUDA the session is the engine's own; beside the ratios stand the MB that the libraries
take of the device and of the host.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import psutil

from benchmarks.ways import in_int8
from engine.model.file import ModelFile, open_model
from engine.model.graph.faster import speed_up
from engine.model.graph.memory import activation_bytes
from engine.plan.footprint import MB
from engine.runtimes.base import Target
from engine.runtimes.onnxruntime import CHANNEL_GROUP
from engine.runtimes.registry import open_session, runtime_of
from tests import networks

# widths, or a bundled model; height, width, threads, channels, outputs
CASES = (
    "nuclei 704 1104 2 1 2",
    "nuclei 2048 2048 2 1 2",
    "nuclei-int8 704 1104 2 1 2",
    "nuclei-int8 2048 2048 2 1 2",
    "16,32,64,128 704 1104 1 1 1",
    "16,32,64,128 704 1104 2 1 1",
    "16,32,64,128 2000 2200 1 1 1",
    "16,32,64,128 512 512 2 1 1",
    "64,128,256,512,1024 352 704 1 1 1",
    "64,128,256 512 512 1 1 8",
    "32,64,128 1000 1000 2 1 1",
    "16,32,64,128 1024 1024 2 3 4",
    "8,16 3200 3104 1 1 1",
    "dense-8 1000 1200 1 1 1",
    "dense-12 1000 1200 1 1 1",
)


def parsed(case: str) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """The network; height, width, threads and channels."""
    first, *rest = case.split()
    *sizes, outputs = (int(v) for v in rest)
    if first.startswith("dense-"):
        return dense(int(first.removeprefix("dense-"))), tuple(sizes)
    if (bundled := bundled_model(first)) is not None:
        return bundled.parse(), tuple(sizes)
    widths = tuple(int(w) for w in first.split(","))
    return networks.unet(widths, n_channels=sizes[3], n_outputs=outputs), tuple(sizes)


def dense(growth: int, layers: int = 5) -> onnx.ModelProto:
    """A network of which each layer reads all before it: concatenations that stay."""
    nodes, weights, last, width = [], [], "image", 1
    for n in range(layers):
        kernel = np.full((growth, width, 3, 3), 0.01, np.float32)
        weights.append(onnx.numpy_helper.from_array(kernel, f"w{n}"))
        nodes += [
            onnx.helper.make_node("Conv", [last, f"w{n}"], [f"c{n}"], pads=[1, 1, 1, 1]),
            onnx.helper.make_node("Relu", [f"c{n}"], [f"r{n}"]),
            onnx.helper.make_node("Concat", [last, f"r{n}"], [f"x{n}"], axis=1),
        ]
        last, width = f"x{n}", width + growth
    weights.append(onnx.numpy_helper.from_array(np.ones((1, width, 1, 1), np.float32), "head"))
    nodes.append(onnx.helper.make_node("Conv", [last, "head"], ["probabilities"]))
    tensor, size = onnx.helper.make_tensor_value_info, [None, 1, None, None]
    graph = onnx.helper.make_graph(
        nodes, "dense", [tensor("image", 1, size), tensor("statistics", 1, [None, 1, 2])],
        [tensor("probabilities", 1, size)], weights,
    )  # fmt: skip
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )


def bundled_model(name: str) -> ModelFile | None:
    """A bundled model, or in int8 as "NAME-int8"; None where a case gives widths."""
    base, _, precision = name.partition("-")
    if not base.isalpha():
        return None
    model = open_model(base)
    return open_model(str(in_int8(model))) if precision else model


def crowded(threads: int, count: int, run: Callable[[], object]) -> None:
    """Run as often in each of so many threads."""

    def work() -> None:
        for _ in range(count):
            run()

    crowd = [threading.Thread(target=work) for _ in range(threads)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()


def measure_device(case: str, device: str) -> None:
    network, (height, width, threads, channels) = parsed(case)
    counted = activation_bytes(network, height, width)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        outputs = int(case.split()[-1])
        names = tuple(f"class {n}" for n in range(max(outputs, 2)))
        spec = networks.spec(network, n_channels=channels, classes=names)
        model = open_model(str(networks.save(path, network, spec)))
    runtime, process = runtime_of("onnxruntime"), psutil.Process()
    host = process.memory_info().rss
    runtime.resolve_device(device)

    def free() -> int:
        found = runtime.device_memory(device)
        assert found is not None, "the driver tells no free memory"
        return found.free

    before = free()
    session = open_session(model, "float32", Target("onnxruntime", device), 1)
    statistics = np.array([[[0, 1]] * channels], np.float32)
    session.run(np.zeros((1, channels, 64, 64), np.float32), statistics)
    loaded = free()
    libraries = [before - loaded - len(model.data), process.memory_info().rss - host]
    image = np.random.default_rng(0).random((1, channels, height, width), dtype=np.float32)
    ratios = []
    for count in (1, 3, 4):
        crowded(threads, count, lambda: session.run(image, statistics))
        ratios.append(f"{(loaded - free()) / threads / counted:.2f}")
    sizes = " | ".join(f"{size / MB:.0f}" for size in libraries)
    print(f"| {case} | {', '.join(ratios)} | {sizes} |", flush=True)


def measure(case: str, strategy: int) -> None:
    model, (height, width, threads, channels) = parsed(case)
    speed_up(model)
    counted = activation_bytes(model, height, width, CHANNEL_GROUP)
    options = ort.SessionOptions()
    options.enable_mem_pattern = False
    options.intra_op_num_threads = max(1, 2 // threads)
    options.add_session_config_entry("session.use_env_allocators", "1")
    kind = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    place = ort.OrtMemoryInfo("Cpu", kind, 0, ort.OrtMemType.DEFAULT)
    arena = {"max_mem": 0, "arena_extend_strategy": strategy}
    arena |= {"initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    ort.create_and_register_allocator(place, ort.OrtArenaCfg(arena))
    data = model.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((1, channels, height, width), dtype=np.float32)
    given = {"image": image, "statistics": np.array([[[0, 1]] * channels], np.float32)}
    feeds = {value.name: given[value.name] for value in session.get_inputs()}
    base = psutil.Process().memory_info().rss
    ratios = []
    for count in (1, 3, 4):
        crowded(threads, count, lambda: session.run(None, feeds))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        ratios.append(f"{(peak - base) / threads / counted:.2f}")
    print(f"| {case} | {strategy} | {', '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--device", device]:
            rows = [[case, device] for case in CASES]
        case []:
            rows = [[case, strategy] for case in CASES for strategy in "01"]
        case [case, device] if device.startswith("cuda"):
            measure_device(case, device)
            sys.exit()
        case [case, strategy]:
            measure(case, int(strategy))
            sys.exit()
        case _:
            sys.exit(__doc__)
    for row in rows:
        subprocess.run([sys.executable, "-m", "benchmarks.arena", *row], check=True)
