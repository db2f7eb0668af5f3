"""Runs of benchmarks as JSON: the machine, versions, and every repeat of every figure.

    benchmarks/results/runs/NAME.json, of `--save`
      {"benchmark": "stages", "command": ..., "date": ..., "machine": {...}, "versions": {...},
       "figures": {"raw/labels": {"unit": "core-ms a frame", "values": [...]}, ...}}

`compare` puts two runs side by side. A ratio is worth something where both ran on one machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"
RUNS = RESULTS / "runs"
PACKAGES = (
    "stackseg", "numpy", "scipy", "zarr", "numcodecs", "imagecodecs", "tifffile", "dask",
    "distributed", "onnxruntime", "onnxruntime-gpu", "openvino", "torch", "monai",
    "bioimageio.core",
)  # fmt: skip


@dataclass
class Run:
    """One run of a benchmark."""

    benchmark: str
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, unit: str, values: list[float]) -> None:
        """Keep the repeats of a figure."""
        self.figures[name] = {"unit": unit, "values": [round(value, 4) for value in values]}

    def write(self, path: Path | None = None) -> Path:
        """Write it, by default to results/runs/BENCHMARK-DATE.json."""
        path = path or RUNS / f"{self.benchmark}-{time.strftime('%Y-%m-%d')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "benchmark": self.benchmark, "command": " ".join(["python -m", *_command()]),
            "date": time.strftime("%Y-%m-%dT%H:%M:%S"), "machine": machine(),
            "versions": versions(), "notes": self.notes, "figures": self.figures,
        }  # fmt: skip
        path.write_text(json.dumps(content, indent=1) + "\n")
        print(f"written to {path}", file=sys.stderr)
        return path

    def table(self) -> str:
        """Figures as Markdown: median, and the range of the middle half."""
        return table({self.benchmark: self.figures})


def _command() -> list[str]:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [spec.name if spec else Path(sys.argv[0]).stem, *sys.argv[1:]]


def machine() -> dict[str, Any]:
    """Processor, cores that may be used, memory, load."""
    from engine.job.report import machine as described
    from engine.plan.resources import cores

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": described().processor, "model": model(), "cores": cores(),
        "memory_gb": round(pages / 2**30, 1),
        "load": [round(one, 1) for one in os.getloadavg()], "gpu": gpu(),
        "python": platform.python_version(),
        "system": platform.platform(), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", ""),
    }  # fmt: skip


def model() -> str:
    """Family and model of the processor, which its name may not tell; "" where Linux isn't."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    found = dict(re.findall(r"^(cpu family|model)\s*: (\d+)$", text, re.MULTILINE))
    return f"family {found['cpu family']}, model {found['model']}" if len(found) == 2 else ""


def gpu() -> str:
    """Name of the GPU as its driver tells it, "" where there is none."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def versions() -> dict[str, str]:
    """Versions of what is installed of PACKAGES."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def taking_turns(
    variants: Mapping[str, Callable[[], Any]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each repeat of each variant; they take turns, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, call in variants.items():
            begin = clock()
            call()
            if turn:
                seconds[name].append(clock() - begin)
    return seconds


def medians(variants: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each variant; they take turns, after one turn that does not count."""
    found = taking_turns(variants, repeats)
    return {name: statistics.median(values) for name, values in found.items()}


def header(title: str, command: str, runtime: str, repeats: int) -> list[str]:
    """What figures in Markdown were measured on, and with which `command`."""
    here = machine()
    return [
        f"# {title}", "",
        f"{here['processor']}, {here['cores']} cores; {runtime}; medians of {repeats}; "
        f"{time.strftime('%Y-%m-%d')}; `python -m {command}`", "",
    ]  # fmt: skip


class Cost(NamedTuple):
    """What a call took."""

    seconds: float
    core_seconds: float  # of all threads of this process: other load changes them less


def now() -> Cost:
    """What both clocks say."""
    return Cost(time.perf_counter(), time.process_time())


def since(begin: Cost) -> Cost:
    """What has been taken since `begin`."""
    end = now()
    return Cost(end.seconds - begin.seconds, end.core_seconds - begin.core_seconds)


def costs(variants: Mapping[str, Callable[[], Cost | None]], repeats: int) -> dict[str, list[Cost]]:
    """As `taking_turns`; a variant that returns a cost has left out what does not count."""
    found: dict[str, list[Cost]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, call in variants.items():
            begin = now()
            taken = call() or since(begin)
            if turn:
                found[name].append(taken)
    return found


def add_options(parser: argparse.ArgumentParser, repeats: int = 5) -> argparse.ArgumentParser:
    """Options that benchmarks share."""
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--json", type=Path, help="where the run is written")
    parser.add_argument("--save", action="store_true", help="write results/runs/NAME-DATE.json")
    return parser


def finish(run: Run, options: argparse.Namespace) -> None:
    """Print a run, and write it where that was asked for."""
    print(run.table())
    if options.save or options.json:
        run.write(options.json)


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, and the quartiles around it."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def newest(benchmark: str, folder: Path = RUNS) -> Path:
    """The file of a benchmark's last run; SystemExit where there is none."""
    found = sorted(folder.glob(f"{benchmark}-[0-9]*.json"))
    if not found:
        raise SystemExit(f"{folder}: holds no run of {benchmark}")
    return found[-1]


def middle(run: Mapping[str, Any], name: str) -> float:
    """The median of a figure of a run as it was written."""
    return spread(run["figures"][name]["values"])[0]


def table(runs: Mapping[str, Mapping[str, dict[str, Any]]]) -> str:
    """Figures of runs side by side; with two runs, the second over the first."""
    names = list(runs)
    head = ["figure", "unit", *names, *(["ratio"] if len(names) == 2 else [])]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for name in dict.fromkeys(name for figures in runs.values() for name in figures):
        found = [figures.get(name) for figures in runs.values()]
        unit = next(one["unit"] for one in found if one)
        cells, middles = [], []
        for one in found:
            if one is None:
                cells.append("")
                continue
            middle, low, high = spread(one["values"])
            middles.append(middle)
            cells.append(f"{middle:.3g} ({low:.3g} to {high:.3g})")
        if len(names) == 2:
            cells.append(f"{middles[1] / middles[0]:.2f}" if len(middles) == 2 else "")
        lines.append(f"| {name} | {unit} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compare(first: Path, second: Path) -> str:
    """Two runs side by side, and what differs between their machines and versions."""
    a, b = (json.loads(path.read_text()) for path in (first, second))
    differing = [
        f"{key}: {a[what].get(key)} and {b[what].get(key)}"
        for what in ("machine", "versions")
        for key in sorted(set(a[what]) | set(b[what]))
        if key != "load" and a[what].get(key) != b[what].get(key)
    ]
    names = (first.stem, second.stem) if first.stem != second.stem else (str(first), str(second))
    figures = dict(zip(names, (a["figures"], b["figures"]), strict=True))
    return "\n".join([*differing, "", table(figures)])
