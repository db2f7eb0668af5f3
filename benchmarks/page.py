"""docs/benchmarks.md and its plot, from the newest runs: `python -m benchmarks.page`.

    python -m benchmarks.page [--runs benchmarks/results/runs] [--output docs/benchmarks.md]

Runs that are not there are left out. No figure is written by hand.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.record import RUNS, newest, spread

OUTPUT = Path("docs/benchmarks.md")
HEAD = """# Benchmarks

Made by `python -m benchmarks.page` of the newest runs in `benchmarks/results/runs`; what each
measures is in the first lines of its file, how to run them in
[benchmarks](../benchmarks/README.md). Figures are medians of repeats that take turns, with the
middle half of them in brackets. Ratios hold within one table. int8 is a file that no gate has
judged; `stackseg export` writes one only where its labels agree. No figure is from a GPU.
"""
SECTIONS = {
    "paper": ("The paper's second", "512 x 512 px from file to labels, levels and tables on disk, "
              "start-up left out. The paper (2015): less than a second on a GPU, by the network "
              "that is called ronneberger here."),
    "limit": ("Against the limit", "A whole job over the bare runtime at its best setting, and "
              "over the fastest multiplication of matrices in that precision."),
    "peers": ("Against peers", "Frames of 700 x 1100 px to labels on disk, the same weights, "
              "frames and cores, start-up and compilation left out. Peers label components of the "
              "foreground; the engine grows cores, measures objects and makes levels as well."),
    "stages": ("Stages", "Processor time of a job whose network costs nothing: what is done "
               "around it."),
    "hela": ("Real frames", "`stackseg segment` on the 92 frames of Fluo-N2DL-HeLa 01, process "
             "start to exit, LZW in; labels, levels and tables out."),
    "workers": ("Workers", "The same job by threads, processes and a cluster of one or two."),
    "scale-frame": ("Large frames", "Cut into regions within 3 GB; every label is the one that "
                    "SciPy gives for the whole frame."),
    "scale-frames": ("Many frames", "Of 256 x 320 px; once run, and once killed half way and "
                     "resumed."),
    "inputs": ("Many small files", "Of 64 x 64 px, with a network of one threshold: whole "
               "commands, start-up included; `again` finds that all is done."),
    "scheduler": ("Dask's scheduler", "Blocks that only wait, by 1,000 slots; what follows from it "
                  "is in [scale](scale.md)."),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    lines = [HEAD]
    for name, (title, told) in SECTIONS.items():
        if not any(options.runs.glob(f"{name}-[0-9]*.json")):
            continue
        run = json.loads(newest(name, options.runs).read_text())
        lines += [f"## {title}", "", told, "", *section(run), ""]
        if name == "peers":
            plot = options.output.with_suffix(".svg")
            draw(run, plot)
            lines += [f"![ms a frame of each]({plot.name})", ""]
    options.output.write_text("\n".join(lines).rstrip() + "\n")


def section(run: Mapping[str, Any]) -> Iterator[str]:
    """A run's machine and command, its table, its notes."""
    machine = run["machine"]
    load = ", ".join(map(str, machine["load"]))
    device = f", {machine['gpu']}" if machine.get("gpu") else ""
    model = f" ({machine['model']})" if machine.get("model") else ""
    yield (f"{machine['processor']}{model}, {machine['cores']} cores{device}; load at the end "
           f"{load}; {run['date'][:10]}; `{run['command']}`")  # fmt: skip
    yield ""
    yield from pivot(run["figures"])
    if run["notes"]:
        yield ""
        yield "; ".join(f"{key}: {value}" for key, value in run["notes"].items()) + "."


def pivot(figures: Mapping[str, Any]) -> Iterator[str]:
    """Figures "row/column" as a table, one for each set of columns."""
    rows: dict[str, dict[str, str]] = {}
    for name, figure in figures.items():
        row, _, column = name.rpartition("/")
        if not row:
            row, column = column, ""
        unit = figure["unit"] if figure["unit"] != column else ""
        head = ", ".join(part for part in (column, unit) if part)
        rows.setdefault(row, {})[head] = cell(figure["values"])
    tables: dict[tuple[str, ...], list[str]] = {}
    for row, cells in rows.items():
        line = f"| {row} | {' | '.join(cells.values())} |"
        tables.setdefault(tuple(cells), []).append(line)
    for number, (columns, lines) in enumerate(tables.items()):
        if number:
            yield ""
        yield f"| | {' | '.join(columns)} |"
        yield "| --- " * (len(columns) + 1) + "|"
        yield from lines


def cell(values: list[float]) -> str:
    """A median, and the middle half where there are several."""
    middle, low, high = (f"{one:,.0f}" if one >= 1000 else f"{one:.3g}" for one in spread(values))
    return middle if len(values) < 2 else f"{middle} ({low} to {high})"


def draw(run: Mapping[str, Any], path: Path) -> None:
    """Bars: ms a frame of each contestant, the engine's in another colour."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "stackseg"  # the same bytes for the same run
    from matplotlib import pyplot

    found = {n: spread(f["values"])[0] for n, f in run["figures"].items()
             if f["unit"] == "ms a frame"}  # fmt: skip
    names = sorted(found, key=lambda name: -found[name])
    colours = ["#0072b2" if name.startswith("engine") else "#999999" for name in names]
    figure, axes = pyplot.subplots(figsize=(7, 0.32 * len(names) + 0.7))
    bars = axes.barh(names, [found[name] for name in names], color=colours)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_xlabel(f"ms a frame, {run['machine']['cores']} cores")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
