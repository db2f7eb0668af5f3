"""Peak of ONNX Runtime's CPU arena over the counted activations: the table in docs/memory.md.

python -m benchmarks.arena

Each row is a process of its own. Strategy 0 doubles its extensions (the runtime's default), 1
grows as requested (what the engine sets). Three figures: after 1, 4 and 8 runs of each thread.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import threading

import numpy as np
import onnxruntime as ort
import psutil

from engine.model.graph.memory import ARENA_OVERHEAD, activation_bytes
from tests import networks

# widths, height, width, threads, channels, outputs
CASES = (
    "16,32,64,128 704 1104 1 1 1",
    "16,32,64,128 704 1104 2 1 1",
    "16,32,64,128 2000 2200 1 1 1",
    "16,32,64,128 512 512 2 1 1",
    "64,128,256,512,1024 352 704 1 1 1",
    "64,128,256 512 512 1 1 8",
    "32,64,128 1000 1000 2 1 1",
    "16,32,64,128 1024 1024 2 3 4",
)


def measure(case: str, strategy: int) -> None:
    first, *rest = case.split()
    widths = tuple(int(w) for w in first.split(","))
    height, width, threads, channels, outputs = (int(v) for v in rest)
    model = networks.unet(widths, n_channels=channels, n_outputs=outputs)
    counted = activation_bytes(model, height, width) / ARENA_OVERHEAD
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
    feeds = {"image": image, "statistics": np.array([[[0, 1]] * channels], np.float32)}
    base = psutil.Process().memory_info().rss

    def run(count: int) -> None:
        for _ in range(count):
            session.run(None, feeds)

    ratios = []
    for count in (1, 3, 4):
        crowd = [threading.Thread(target=run, args=(count,)) for _ in range(threads)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        ratios.append(f"{(peak - base) / threads / counted:.2f}")
    print(f"| {case} | {strategy} | {', '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        measure(sys.argv[1], int(sys.argv[2]))
    else:
        for case in CASES:
            for strategy in "01":
                command = [sys.executable, "-m", "benchmarks.arena", case, strategy]
                subprocess.run(command, check=True)
