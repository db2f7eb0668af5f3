"""An epoch of `stackseg train` against a plain loop: `python -m benchmarks.epoch --data DIR`.

    python -m benchmarks.epoch --data DIR --layout ctc|pairs [--steps 40] [--repeats 3] [--save]

The plain loop is what notebooks write: a DataLoader without workers, float32, PyTorch's own memory
layout, Adam, BCE with logits. It learns from the same patches. Both train the preset `notebook`, so
that the loops alone are compared; a third row is `stackseg train` with its own default network.
Medians of repeats that take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `stackseg train` has it

import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from benchmarks.record import RESULTS
from engine.job.report import machine
from engine.plan.resources import cores
from train.data.dataset import TrainingData, load_data
from train.data.patches import Patches, shares_by_area
from train.epoch import train_epoch
from train.loader import batches
from train.networks import build_network
from train.optimise import Fitting, resolve_arithmetic
from train.presets import PRESETS
from train.settings import TrainSettings
from train.teachers import Teachers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--layout", default="ctc")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/*.md")
    options = parser.parse_args()
    torch.set_num_threads(cores())
    notebook, own = (settings_of(options, preset) for preset in ("notebook", "nuclei"))
    data = load_data(notebook)
    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "plain loop, notebook": lambda: plain(data, notebook),
        "stackseg train, notebook": lambda: ours(data, notebook),
        "stackseg train, nuclei (default)": lambda: ours(data, own),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            found[name].append(way())
    text = table(found, options)
    print(text)
    if options.save:
        (RESULTS / f"epoch-{time.strftime('%Y-%m-%d')}.md").write_text(text)


def settings_of(options: argparse.Namespace, preset: str) -> TrainSettings:
    """The same data, patches and steps for every way."""
    border = 25 if options.layout == "ctc" else 0
    return TrainSettings.model_validate({
        **PRESETS[preset], "data": options.data, "layout": options.layout, "batch": 4,
        "ignore_border": border, "epochs": 1, "steps_per_epoch": options.steps, "augment": "light",
    })  # fmt: skip


def plain(data: TrainingData, settings: TrainSettings) -> tuple[float, float]:
    """Seconds of an epoch, and of these for patches, of a loop as notebooks have it."""
    torch.manual_seed(0)
    network = build_network(settings.network(data.n_channels, settings.n_outputs)).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    shares = shares_by_area(data.train, data.is_synthetic, settings.synthetic_share)
    patches = Patches(data.train, shares, settings, 0, settings.steps_per_epoch * settings.batch)
    start, waited = time.perf_counter(), 0.0
    loader = iter(DataLoader(patches, batch_size=settings.batch))
    for _ in range(settings.steps_per_epoch):
        begun = time.perf_counter()
        batch: Any = next(loader)
        waited += time.perf_counter() - begun
        optimiser.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(network(batch.image), batch.target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return time.perf_counter() - start, waited


def ours(data: TrainingData, settings: TrainSettings) -> tuple[float, float]:
    """The same of `stackseg train`."""
    torch.manual_seed(0)
    arithmetic = resolve_arithmetic(settings)
    network = build_network(settings.network(data.n_channels, settings.n_outputs))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fitting = Fitting.of(network, settings, arithmetic)
    start = time.perf_counter()
    teachers = Teachers.of(settings, data, arithmetic)
    taught = train_epoch(
        fitting, batches(data, settings), 0, data.train, arithmetic, teachers, settings
    )
    return time.perf_counter() - start, taught.waited


def table(found: dict[str, list[tuple[float, float]]], options: argparse.Namespace) -> str:
    """The medians as Markdown."""
    taken = {name: [statistics.median(v) for v in zip(*runs, strict=True)]
             for name, runs in found.items()}  # fmt: skip
    base = next(iter(taken.values()))[0]
    rows = [
        f"| {name} | {1000 * seconds / options.steps:.0f} | {waited / seconds:.0%} "
        f"| {base / seconds:.2f} |"
        for name, (seconds, waited) in taken.items()
    ]
    return "\n".join([
        "# An epoch of training against a plain loop", "",
        f"{machine().processor} ({torch.backends.cpu.get_cpu_capability()}), {cores()} cores; "
        f"torch {torch.__version__}; {options.steps} steps of 4 patches of 192 px; medians of "
        f"{options.repeats}; {time.strftime('%Y-%m-%d')}; `python -m benchmarks.epoch`", "",
        "| way | ms a step | of it waiting for patches | times the plain loop |",
        "| --- | --- | --- | --- |", *rows,
    ]) + "\n"  # fmt: skip


if __name__ == "__main__":
    main()
