"""Labels of every runtime and precision against fp32 on the CPU: `python -m benchmarks.agreement`.

    python -m benchmarks.agreement [--frames 4] [--device cpu|cuda:N] [--save] [--json FILE]

Synthetic frames of 700 x 1100 px, the bundled network; the reference is ONNX Runtime on the CPU
without optimisations. F1 is of the objects at an IoU of 0.9. `benchmarks.precision` does it on
real frames and tries several files in int8; this is what `benchmarks/gpu.sh` begins with.
"""

from __future__ import annotations

import argparse

from benchmarks import frames as of
from benchmarks.record import Run, add_options, finish
from benchmarks.ways import look_at, ways_of
from engine.inference.agreement import GATE, compare_all, label_all
from engine.model.file import open_model
from engine.plan.resources import cores
from engine.runtimes.registry import REFERENCE

SHAPE = of.SHAPE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--precisions", nargs="+", default=())
    parser.add_argument("--device", default="cpu")
    options = add_options(parser).parse_args()
    run = Run("agreement")
    measure(run, options)
    finish(run, options)


def measure(run: Run, options: argparse.Namespace) -> None:
    """Every way to run the bundled network, on the same frames."""
    model = open_model("nuclei")
    looks = [look_at(model, frame) for frame in of.crowded(options.frames, SHAPE)]
    wanted = label_all(model, REFERENCE, looks, cores())
    for way in ways_of("nuclei", options.device, options.precisions):
        labels = label_all(open_model(way.model), way.target, looks, cores())
        found = compare_all(labels, wanted, looks)
        run.add(f"{way.name}/F1 at 0.9", "of the objects", [found.f1 or 0.0])
        run.add(f"{way.name}/differ", "of the pixels", [found.changed_fraction])
        run.notes[way.name] = "agrees" if (found.f1 or 0) >= GATE else "DIFFERS"


if __name__ == "__main__":
    main()
