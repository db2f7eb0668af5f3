"""What OpenVINO holds beside what the plan counts: its constants in docs/memory.md.

    python -m benchmarks.openvino_memory

Each row is a process of its own: MB of the libraries with a tiny network; bytes of a session over
those of its model file; peak of the runs over the counted activations, after 1, 4 and 8 runs of
each thread, of two shapes in turn; the same after memory was released. Then the same with a session
for one shape.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil

from benchmarks.arena import CASES, bundled_model, crowded
from engine.model.file import ModelFile, open_model
from engine.model.graph.faster import speed_up
from engine.model.graph.memory import activation_bytes
from engine.plan.footprint import MB
from engine.runtimes.base import Target
from engine.runtimes.registry import open_session, runtime_of
from tests import networks

TARGET = Target("openvino", "cpu")
OWN_CASES = [case for case in CASES if not case.startswith("dense")]
ANY, FIXED = "any shape", "one shape"  # that a session is for


def model_of(folder: str, widths: tuple[int, ...], channels: int, outputs: int) -> ModelFile:
    network = networks.unet(widths, n_channels=channels, n_outputs=outputs)
    names = tuple(f"class {n}" for n in range(max(outputs, 2)))
    spec = networks.spec(network, n_channels=channels, classes=names)
    return open_model(str(networks.save(Path(folder) / "model.onnx", network, spec)))


def held() -> int:
    """Bytes of this process now."""
    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    """The most bytes that this process had."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def measure(case: str, sessions: str) -> None:
    name, *rest = case.split()
    height, width, threads, channels, outputs = map(int, rest)
    statistics = np.array([[[0, 1]] * channels], np.float32)
    small = np.zeros((1, channels, 64, 64), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        bundled = bundled_model(name)
        widths = () if bundled else tuple(map(int, name.split(",")))
        tiny = model_of(folder, (2,), channels, outputs if widths else 1)
        model = bundled or model_of(folder, widths, channels, outputs)
        before = held()
        open_session(tiny, "float32", TARGET, 1).run(small, statistics)
        libraries = held() - before
        before = held()
        fixed = (1, height, width) if sessions == FIXED else None
        session = open_session(model, "float32", TARGET, max(1, 2 // threads), threads, shape=fixed)
        if fixed is None:
            session.run(small, statistics)
        copies = (held() - before) / len(model.data)
        graph = model.parse()
        speed_up(graph)
        counted = activation_bytes(graph, height, width)
    rng = np.random.default_rng(0)
    shapes = [(height, width)] if fixed else [(height, width), (height - 32, width - 64)]
    images = [rng.random((1, channels, *shape), dtype=np.float32) for shape in shapes]
    out = np.empty((threads, outputs, height, width), np.float32)  # planned with the frame
    out[:] = 0
    ready, ratios = held(), []
    for count in (1, 3, 4):
        turns = itertools.cycle(images)
        crowded(threads, count, lambda turns=turns: session.run(next(turns), statistics))
        ratios.append(f"{(peak() - ready) / threads / counted:.2f}")
    runtime_of("openvino").release_memory()
    left = (held() - ready) / threads / counted
    print(
        f"| {case} | {sessions} | {libraries / MB:.0f} | {copies:.2f} | {', '.join(ratios)} | "
        f"{left:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case [case, sessions]:
            measure(case, sessions)
        case []:
            for sessions, case in itertools.product((ANY, FIXED), OWN_CASES):
                command = [sys.executable, "-m", "benchmarks.openvino_memory", case, sessions]
                subprocess.run(command, check=True)
        case _:
            sys.exit(__doc__)
