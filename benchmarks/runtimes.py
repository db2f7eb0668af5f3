"""The bundled network by each runtime and precision that works here.

    python -m benchmarks.runtimes [--model nuclei] [--repeats 7] [--threads N]

Frames of 700 x 1100 px from memory, one after the other, the runtimes taking turns. Beside the
wall clock stands the processors' time, which a machine that others use stretches less. Differences
are of the probabilities from ONNX Runtime on the CPU without optimisation, for one frame of nuclei.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import numpy as np

from benchmarks.throughput import SHAPE, header
from engine.geometry.tiling import round_up
from engine.inference.tiles import pad_to
from engine.model.file import open_model
from engine.model.statistics import frame_statistics
from engine.plan.resources import cores
from engine.runtimes.base import Target
from engine.runtimes.registry import REFERENCE, RUNTIMES, open_session, resolve, runtime_of
from engine.synthetic import TimeLapse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=cores())
    options = parser.parse_args()
    model = open_model(options.model)
    frame = TimeLapse(shape=(60, *SHAPE), seed=0).frame(40)[0][None]
    values = frame_statistics(frame, model.spec.normalisation)[None]
    height, width = (round_up(size, model.spec.stride) for size in SHAPE)
    pixels = np.ascontiguousarray(pad_to(frame, (height, width)))[None]
    dtype = str(frame.dtype)
    reference = open_session(model, dtype, REFERENCE, options.threads).run(pixels, values)
    targets = [
        resolve(Target(name, "cpu", precision))
        for name in RUNTIMES
        for precision in runtime_of(name).precisions
    ]
    sessions = [open_session(model, dtype, target, options.threads) for target in targets]
    differences = [np.abs(one.run(pixels, values) - reference).max() for one in sessions]
    wall: list[list[float]] = [[] for _ in targets]
    used: list[list[float]] = [[] for _ in targets]
    for _ in range(options.repeats):
        for session, walls, uses in zip(sessions, wall, used, strict=True):
            start, busy = time.perf_counter(), time.process_time()
            session.run(pixels, values, reference)
            walls.append(1000 * (time.perf_counter() - start))
            uses.append(1000 * (time.process_time() - busy))
    command = f"benchmarks.runtimes --repeats {options.repeats} --threads {options.threads}"
    lines = header("Runtimes on the CPU", command, targets[0], options.repeats)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    lines += [
        f"Model {model.sha256[:12]}, {options.threads} threads; load of the machine {load}.",
        "",
        "| runtime | ms a frame, median (least) | ms of processor time | greatest difference |",
        "| --- | --- | --- | --- |",
    ]
    for target, walls, uses, difference in zip(targets, wall, used, differences, strict=True):
        lines.append(
            f"| {runtime_of(target.runtime).build(target)} | {statistics.median(walls):.0f} "
            f"({min(walls):.0f}) | {statistics.median(uses):.0f} | {difference:.1g} |"
        )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
