"""Frames to labels on disk, beside what people run today: `python -m benchmarks.peers`.

    make peers                                    # their environment: .peers
    python -m benchmarks.peers [--frames 40] [--repeats 2] [--python .peers/bin/python]
                               [--only NAME ...] [--network FILE] [--save] [--json FILE]

Frames of 700 x 1100 px with 300 nuclei out of an uncompressed TIFF, by one network (the bundled
model's, or an exported one of the same channels) with the same weights on the same cores. Each
contestant (`benchmarks.peer`) is a process that is made ready first: imports, loading, compilation
and a first pass are left out for all. Then they take turns.

    eager            PyTorch, frame by frame, as notebooks do
    compiled         torch.compile with frozen weights, channels last, in fp32 and in bf16
    monai 1, monai 4 SlidingWindowInferer, 512 px, overlap 0.25, Gaussian; windows at a time
    bioimageio       bioimageio.core with ONNX weights, whole frames
    dask             map_overlap with ONNX Runtime, chunks of 512 px, one for each core
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import frames as of
from benchmarks.peer import names
from benchmarks.record import Cost, Run, add_options, costs, finish
from benchmarks.ways import ways_of
from engine.plan.resources import cores

PEERS = Path(".peers/bin/python")
ENGINE = "engine "
MONAI = "monai"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--python", type=Path, default=PEERS, help="of the peers' environment")
    parser.add_argument("--only", nargs="+", help="names of contestants")
    parser.add_argument("--network", default="nuclei", help="a model's name or file")
    options = add_options(parser, repeats=2).parse_args()
    if not options.python.exists():
        raise SystemExit(f"{options.python}: is not there; `make peers` makes it")
    ours = [f"{ENGINE}{way.name}" for way in ways_of(options.network)]
    run = Run(
        "peers", notes={"network": options.network, "frames": options.frames, "shape": of.SHAPE}
    )
    measure(run, options.only or [*names(), *ours], options)
    finish(run, options)


def measure(run: Run, contestants: list[str], options: argparse.Namespace) -> None:
    """All contestants by turns, and the headline's ratios."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        frames = of.crowded(min(options.frames, 10))
        stack = of.write(Path(folder) / "frames.tif", frames, options.frames)
        variants = {}
        for name in contestants:
            python = Path(sys.executable) if name.startswith(ENGINE) else options.python
            output = Path(folder) / name.replace(" ", "-")
            child = opened.enter_context(process(python, name, stack, output, options.network))
            if child is None:
                run.notes[name] = "does not work here"
            else:
                variants[name] = lambda child=child: ask(child)
        found = costs(variants, options.repeats)
    for name, taken in found.items():
        run.add(name, "ms a frame", [1000 * one.seconds / options.frames for one in taken])
    for name, taken in found.items():
        run.add(f"{name}/processor", "core-ms a frame",
                [1000 * one.core_seconds / options.frames for one in taken])  # fmt: skip
    headline(run, found)


def headline(run: Run, found: dict[str, list[Cost]]) -> None:
    """How many times faster the engine is than MONAI, and than the best at equal precision."""
    seconds = {name: [one.seconds for one in taken] for name, taken in found.items()}

    def best(those: Iterator[str]) -> str | None:
        return min(those, key=lambda name: sorted(seconds[name])[len(seconds[name]) // 2],
                   default=None)  # fmt: skip

    ours = [name for name in seconds if name.startswith(ENGINE)]
    monai = best(name for name in seconds if name.startswith(MONAI))
    for precision in ("fp32", "bf16", "int8"):
        engine = best(name for name in ours if name.endswith(precision))
        peer = best(n for n in seconds if n not in ours and precision_of(n) == precision)
        for other in dict.fromkeys(one for one in (monai, peer) if one and engine):
            pairs = zip(seconds[engine], seconds[other], strict=True)
            run.add(f"{engine} over {other}", "times as fast", [b / a for a, b in pairs])


def precision_of(peer: str) -> str:
    """What a peer computes in."""
    return "bf16" if peer.endswith("bf16") else "fp32"


@contextmanager
def process(
    python: Path, name: str, stack: Path, output: Path, network: str
) -> Iterator[subprocess.Popen[str] | None]:
    """A contestant that is ready; None where it does not work."""
    threads = str(cores())
    quiet = {"OMP_NUM_THREADS": threads, "LOGURU_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore"}
    child = subprocess.Popen(
        [python, "-m", "benchmarks.peer", name, stack, output, threads, network],
        text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | quiet,
    )  # fmt: skip
    assert child.stdin is not None and child.stdout is not None
    try:
        is_ready = child.stdout.readline().strip() == "ready"
        yield child if is_ready else None
    finally:
        child.stdin.close()
        child.wait()


def ask(child: subprocess.Popen[str]) -> Cost:
    """One pass of a contestant."""
    assert child.stdin is not None and child.stdout is not None
    print(file=child.stdin, flush=True)
    seconds, core_seconds = child.stdout.readline().split()
    return Cost(float(seconds), float(core_seconds))


if __name__ == "__main__":
    main()
