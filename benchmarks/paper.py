"""The paper's second: 512 x 512 px from file to labels on disk: `python -m benchmarks.paper`.

    python -m benchmarks.paper [--frames 8] [--repeats 3] [--precisions fp32 bf16 int8]
                               [--device cpu] [--save] [--json FILE]

Ronneberger et al. (2015): "Segmentation of a 512x512 image takes less than a second on a recent
GPU", by a network of 64 to 1024 channels. Here that network with random weights (time is the same)
and the bundled one, in every way that works here, from the first block to `job.json`: read,
network, labels, measures, levels, tables. `one image` is a job of a single frame, which has all
cores; `of a stack` is a frame of a job of several, which goes on with the next meanwhile.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import frames as of
from benchmarks.jobs import cost_of, executor, settings_of
from benchmarks.record import Cost, Run, add_options, costs, finish
from benchmarks.ways import NETWORKS, ways_of

SHAPE = (512, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--precisions", nargs="+", default=())
    parser.add_argument("--device", default="cpu")
    options = add_options(parser, repeats=3).parse_args()
    run = Run("paper", notes={"frames of a stack": options.frames})
    with tempfile.TemporaryDirectory() as folder:
        for network in options.networks:
            measure(run, Path(folder), network, options)
    finish(run, options)


def measure(run: Run, folder: Path, network: str, options: argparse.Namespace) -> None:
    """Every way to run a network."""
    frames = of.crowded(options.frames, SHAPE)
    stacks = {
        "one image": (of.write(folder / "one.tif", frames, 1), 1),
        "of a stack": (of.write(folder / "stack.tif", frames, len(frames)), len(frames)),
    }
    with executor() as by:
        variants: dict[str, Callable[[], Cost | None]] = {
            f"{network}/{way.name}/{kind}": partial(
                cost_of, settings_of(stack, folder / "out", way), by
            )
            for way in ways_of(network, options.device, options.precisions)
            for kind, (stack, _) in stacks.items()
        }
        found = costs(variants, options.repeats)
    for name, taken in found.items():
        count = stacks[name.rpartition("/")[2]][1]
        run.add(name, "ms a frame", [1000 * one.seconds / count for one in taken])


if __name__ == "__main__":
    main()
