"""1 TB, 100 TB and 10 PB, computed from what was measured: `python -m benchmarks.beyond`.

    python -m benchmarks.beyond [--limit RUN.json] [--stages RUN.json] [--scheduler RUN.json]
                                [--output docs/scale.md]

Without options the newest runs in results/runs are taken. Nothing is measured here: it is
arithmetic on core-ms a frame, on the files and bytes that a frame leaves, and on the scheduler's
time a task. A frame is one of 700 x 1100 px of 16 bits.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.frames import SHAPE
from benchmarks.record import middle, newest
from engine.geometry.layout import BLOCK_PIXELS

SIZES = {"1 TB": 1e12, "100 TB": 1e14, "10 PB": 1e16}  # bytes of raw pixels
NIGHT_H = 12
PIXELS = SHAPE[0] * SHAPE[1]
BLOCK = BLOCK_PIXELS // PIXELS  # frames
SLOTS = 1000  # blocks in flight of the cluster whose scheduler was driven
GPU_RATES = (100, 300, 1000)  # frames/s that a GPU may reach; none has been measured
RUNS = ("limit", "stages", "scheduler")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in RUNS:
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--output", type=Path, help="file to write  [default: stdout]")
    options = parser.parse_args()
    found = {name: getattr(options, name) or newest(name) for name in RUNS}
    runs = {name: json.loads(path.read_text()) for name, path in found.items()}
    text = "\n".join(page(runs, list(found.values())))
    if options.output:
        options.output.write_text(text)
    else:
        print(text)


def page(runs: Mapping[str, Any], files: list[Path]) -> list[str]:
    """docs/scale.md."""
    machine = runs["limit"]["machine"]
    return [
        "# Beyond one machine", "",
        "Computed by `python -m benchmarks.beyond --output docs/scale.md` from what was measured "
        f"on {machine['processor']}, {machine['cores']} cores "
        f"({', '.join(f'`{file.name}`' for file in files)}). Only those runs are measurements: no "
        "cluster, no GPU and no disk of these sizes was at hand. A frame is one of 700 x 1100 px "
        "of 16 bits with 300 nuclei; other processors, networks and frames take other times.", "",
        "## Hours and cores", "",
        "Whole jobs with the bundled network, start-up left out; cores as busy as those that were "
        "measured.", *work(runs["limit"]),
        "## Disk and requests", "",
        "What a frame leaves: labels with levels, objects, records and timings. A frame is one "
        "read where its page lies in one piece; its strips come with it.", *left(runs["stages"]),
        "## The scheduler", "",
        *load(runs), "",
        f"Blocks are tasks of Dask's scheduler, which has one thread. A block is at most "
        f"{BLOCK_PIXELS / 2**20:g} Mi px (`BLOCK_PIXELS`). Where the last column is below that, "
        f"the blocks that there are keep {SLOTS:,} cores busy. Beyond the cores of the column "
        "before it, split the inputs into several jobs, or use job arrays (`--array-task`), which "
        "need no scheduler.", "",
        "## Beside a GPU", "",
        "Cores for what is done behind the network, if a GPU gives so many frames a second. No GPU "
        "was measured.", *gpus(runs),
    ]  # fmt: skip


def rows(head: str, lines: Iterator[list[str]]) -> list[str]:
    """A table as Markdown."""
    titles = head.split(" | ")
    found = [f"| {head} |", "| --- " * len(titles) + "|"]
    return ["", *found, *(f"| {' | '.join(cells)} |" for cells in lines), ""]


def core_ms(limit: Mapping[str, Any]) -> dict[str, float]:
    """Core-ms a frame of whole jobs with the bundled network, by runtime and precision."""
    ending = "/engine, processor"
    names = [n for n in limit["figures"] if n.startswith("nuclei/") and n.endswith(ending)]
    return {n.removeprefix("nuclei/").removesuffix(ending): middle(limit, n) for n in names}


def work(limit: Mapping[str, Any]) -> list[str]:
    """Hours and cores."""

    def lines() -> Iterator[list[str]]:
        for way, cost in core_ms(limit).items():
            hours = [size / 2 / PIXELS * cost / 3.6e6 for size in SIZES.values()]  # of one core
            yield [way, f"{cost:.0f}", *(f"{one:,.0f}" for one in hours),
                   *(f"{one / NIGHT_H:,.0f}" for one in hours)]  # fmt: skip

    sizes = [f"core-hours, {size}" for size in SIZES]
    cores = [f"cores for {NIGHT_H} h, {size}" for size in SIZES]
    return rows(" | ".join(["setting", "core-ms a frame", *sizes, *cores]), lines())


def left(stages: Mapping[str, Any]) -> list[str]:
    """Disk and requests."""
    each = stages["notes"]["left a frame"]

    def lines() -> Iterator[list[str]]:
        for name, size in SIZES.items():
            frames = size / 2 / PIXELS
            rate = size / (NIGHT_H * 3600)
            yield [
                name, f"{frames:,.0f}", f"{frames / BLOCK:,.0f}",
                f"{frames * each['bytes'] / 1e9:,.0f}", f"{frames * each['files']:,.0f}",
                f"{rate / 1e9:,.2f}", f"{frames * (1 + each['files']) / (NIGHT_H * 3600):,.0f}",
            ]  # fmt: skip

    return rows(
        f"raw pixels | frames | blocks of {BLOCK} | results GB | files put | GB/s read in "
        f"{NIGHT_H} h | reads and puts a second", lines(),
    )  # fmt: skip


def load(runs: Mapping[str, Any]) -> list[str]:
    """What one scheduler has to do."""
    scheduler, each = runs["scheduler"], runs["stages"]["notes"]["left a frame"]
    task_ms = max(middle(scheduler, n) for n in scheduler["figures"] if n.endswith("/scheduler"))
    tasks_a_block = each["tasks"] * BLOCK

    def lines() -> Iterator[list[str]]:
        for way, cost in core_ms(runs["limit"]).items():
            seconds = cost * BLOCK / 1000  # a block on one core
            wanted = SLOTS / seconds * tasks_a_block
            most = 1000 / task_ms
            yield [
                way, f"{seconds:.1f}", f"{wanted:,.0f}", f"{wanted / most:.0%}",
                f"{most * seconds / tasks_a_block:,.0f}",
                f"{SLOTS * tasks_a_block / most / seconds * BLOCK_PIXELS / 2**20:,.1f}",
            ]  # fmt: skip

    return [
        f"The scheduler takes {task_ms:.2f} ms of a core for a task at the most, so that one core "
        f"of it is used up by {1000 / task_ms:,.0f} tasks a second; a block is {tasks_a_block:.2f} "
        "tasks, levels included.",
        *rows(
            f"setting | seconds a block and core | tasks a second of {SLOTS:,} cores | of the "
            f"scheduler | cores at which it is used up | least block for {SLOTS:,} cores, Mi px",
            lines(),
        ),
    ]  # fmt: skip


def gpus(runs: Mapping[str, Any]) -> list[str]:
    """Cores that must stand beside a GPU, for what is done behind the network."""

    def lines() -> Iterator[list[str]]:
        for kind in ("raw", "lzw"):
            cost = middle(runs["stages"], f"{kind}/all")
            yield [kind, f"{cost:.1f}", *(f"{rate * cost / 1000:.1f}" for rate in GPU_RATES)]

    rates = [f"cores for {rate:,} frames/s" for rate in GPU_RATES]
    return rows(" | ".join(["pages", "core-ms a frame behind the network", *rates]), lines())


if __name__ == "__main__":
    main()
