"""The engine against the bare runtime, and both against the machine: `python -m benchmarks.limit`.

    python -m benchmarks.limit [--networks nuclei ronneberger] [--frames 40] [--repeats 3]
                               [--precisions fp32 bf16 int8] [--device cpu] [--save] [--json FILE]

engine  a whole job, frames of an uncompressed TIFF to labels, levels, tables and records on disk,
        from the first block on; frames of 700 x 1100 px with 300 nuclei for `nuclei`, of
        512 x 512 px for the paper's network, of which fewer are taken
bare    the same graph by the same runtime, fed from memory, results thrown away, at the fastest of
        several settings of streams, threads and batch (`benchmarks.bare`)
peak    a multiplication of matrices by the fastest runtime in that precision

All take turns. `engine over bare` is 1 where the engine costs nothing. int8 is timed whatever its
labels are. core-ms are of all threads of the process: other load changes them less.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import bare
from benchmarks import frames as of
from benchmarks.jobs import cost_of, executor, settings_of
from benchmarks.record import Cost, Run, add_options, costs, finish, now, since
from benchmarks.ways import NETWORKS, Way, look_at, padded, ways_of
from engine.model.file import open_model
from engine.plan.resources import cores

SHAPES = {"ronneberger": (512, 512)}
SHARE = {"ronneberger": 0.2}  # of the frames: it takes ten times as long
IN_MEMORY = 8  # frames that the bare runtime gets, again and again
UNIT, CORE = "ms a frame", "core-ms a frame"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--precisions", nargs="+", default=())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", type=int, nargs=2, help="px  [default: see above]")
    options = add_options(parser, repeats=3).parse_args()
    run = Run("limit")
    peaks = measure_peaks(run, options)
    with tempfile.TemporaryDirectory() as folder:
        for network in options.networks:
            measure(run, Path(folder), network, options, peaks)
    finish(run, options)


def measure(
    run: Run, folder: Path, network: str, options: argparse.Namespace, peaks: dict[str, float]
) -> None:
    """Every way to run a network: engine and bare runtime by turns."""
    shape = tuple(options.shape or SHAPES.get(network, of.SHAPE))
    count = max(int(options.frames * SHARE.get(network, 1)), 1)
    frames = of.crowded(min(IN_MEMORY, count), shape)
    stack = of.write(folder / "frames.tif", frames, count)
    ways = ways_of(network, options.device, options.precisions)
    variants: dict[str, Callable[[], Cost | None]] = {}
    with executor() as by:
        for way in ways:
            setting, bare_call, taken = fastest(way, frames)
            run.notes[f"{network}/{way.name}/bare"] = str(setting)
            variants[f"{way.name}/bare"] = partial(_scaled, bare_call, count / taken)
            job = settings_of(stack, folder / "out", way)
            variants[f"{way.name}/engine"] = partial(cost_of, job, by)
        found = costs(variants, options.repeats)
    look = look_at(open_model(ways[0].model), frames[0])
    work = bare.gflop(open_model(ways[0].model).parse(), *padded(look).shape[2:])
    run.notes[network] = {"frames": count, "shape": shape, "gflop a frame": round(work, 2)}
    for way in ways:
        ours, theirs = found[f"{way.name}/engine"], found[f"{way.name}/bare"]
        name = f"{network}/{way.name}"
        run.add(f"{name}/bare", UNIT, [1000 * one.seconds / count for one in theirs])
        run.add(f"{name}/engine", UNIT, [1000 * one.seconds / count for one in ours])
        run.add(f"{name}/bare, processor", CORE, [1000 * c.core_seconds / count for c in theirs])
        run.add(f"{name}/engine, processor", CORE, [1000 * c.core_seconds / count for c in ours])
        pairs = list(zip(theirs, ours, strict=True))
        run.add(f"{name}/engine over bare", "ratio", [b.seconds / a.seconds for b, a in pairs])
        if peak := peaks.get(way.precision):
            run.add(f"{name}/engine over peak", "ratio",
                    [count * work / one.seconds / peak for one in ours])  # fmt: skip


def _scaled(call: bare.Passing, factor: float) -> Cost:
    """What a pass would take over as many frames as a job has."""
    begin = now()
    call()
    return Cost(*(factor * one for one in since(begin)))


def fastest(way: Way, frames: list[of.Frame]) -> tuple[bare.Setting, bare.Passing, int]:
    """The setting in which the bare runtime is fastest, a pass, and how many frames it takes."""
    model = open_model(way.model)
    looks = [look_at(model, frame) for frame in frames]
    pixels, statistics = [padded(one) for one in looks], [one.statistics for one in looks]
    best: tuple[float, bare.Setting, bare.Passing, int] | None = None
    for setting in bare.settings(cores() if way.device == "cpu" else 1):
        given = bare.feeds(pixels, statistics, setting.batch)
        if len(given) < setting.streams:
            continue
        call = bare.passing(model.data, way.runtime, way.precision, way.device, setting, given)
        taken = len(given) * setting.batch
        seconds = min(_scaled(call, 1 / taken).seconds for _ in range(2))
        if best is None or seconds < best[0]:
            best = seconds, setting, call, taken
    assert best is not None, "there are fewer frames than cores"
    return best[1:]


def measure_peaks(run: Run, options: argparse.Namespace) -> dict[str, float]:
    """GFLOP/s of a multiplication of matrices, by precision: of the runtime that is fastest."""
    found: dict[str, float] = {}
    ways = [way for way in ways_of("nuclei", options.device, options.precisions)
            if way.precision != "int8"]  # fmt: skip
    for way, streams in itertools.product(ways, sorted({1, cores()})):
        graph, feed = bare.multiplication(half=way.precision == "fp16")
        setting = bare.Setting(streams, max(cores() // streams, 1), 1)
        call = bare.passing(
            graph, way.runtime, way.precision, way.device, setting, [feed] * streams
        )
        rates = [
            streams * bare.multiplication_gflop() / _scaled(call, 1).seconds
            for _ in range(options.repeats + 1)
        ]
        if max(rates) > found.get(way.precision, 0):
            found[way.precision] = max(rates)
            run.add(f"peak/{way.precision}", "GFLOP/s", rates[1:])
            run.notes[f"peak/{way.precision}"] = f"{way.name}, {setting.streams} at a time"
    return found


if __name__ == "__main__":
    main()
