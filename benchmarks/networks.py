"""Which network is worth its arithmetic: `python -m benchmarks.networks --data DIR`.

    python -m benchmarks.networks --data DIR [--unseen DIR] [--output runs/networks]
                                  [--epochs 12] [--steps 100] [--only NAME,...] [--save]

Trains each network of NETWORKS on the same images (layout pairs, --data) with the same patches and
steps, and sets its scores on images that it has not seen against what it costs: GFLOP a megapixel,
and ms of ONNX Runtime in fp32 for a frame of 700 x 1100 px. Unseen are the test fifth of --data
and the frames of --unseen (layout ctc). A network that --output holds is not trained again; all are
timed again, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `stackseg train` has it

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.frames import SHAPE
from benchmarks.record import RESULTS, medians
from engine.job.report import machine
from engine.model.file import open_model
from engine.plan.resources import cores
from engine.results.score.metrics import Score
from engine.runtimes.base import Session, Target
from engine.runtimes.registry import open_session
from export.onnx import export_run
from train.assess import score_whole
from train.checkpoint import load_checkpoint
from train.data.dataset import find_frames, load_part
from train.fit import fit
from train.networks import Network, n_weights
from train.settings import TrainSettings

NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "16-128": {},  # channels of the finest and the coarsest level
    "16-128 half": {"shuffle": 2},
    "16-128 quarter": {"shuffle": 4},
    "8-64 half": {"channels": (8, 16, 32, 64), "shuffle": 2},
    "24-192 half": {"channels": (24, 48, 96, 192), "shuffle": 2},
    "32-256 half": {"channels": (32, 64, 128, 256), "shuffle": 2},  # of StarDist's size and grid
    "32-512 quarter": {"channels": (32, 64, 128, 256, 512), "shuffle": 4},
}
BORDER = 25  # px; the challenge's field of interest


@dataclass(frozen=True)
class Trained:
    """One network, its arithmetic and what it reaches."""

    name: str
    weights: int
    gflop: float  # a megapixel; a multiplication and an addition are two
    val: float  # the mean of SEG and F1 that the choice goes by
    test_seg: float
    test_f1: float  # at IoU 0.5
    unseen_seg: float
    unseen_f1: float
    trained_s: float


@dataclass(frozen=True)
class Row(Trained):
    """The same, and the time it takes."""

    frame_ms: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="images/ and labels/, such as dsb2018")
    parser.add_argument("--unseen", help="a challenge's data set, such as Fluo-N2DL-HeLa")
    parser.add_argument("--output", type=Path, default=Path("runs/networks"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=100, help="per epoch")
    parser.add_argument("--only", help="names of NETWORKS, joined by commas")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/*")
    options = parser.parse_args()
    torch.set_num_threads(cores())
    names = options.only.split(",") if options.only else list(NETWORKS)
    networks = [trained(name, options) for name in names]
    times = frame_ms([run_of(name, options) for name in names])
    rows = [Row(**asdict(one), frame_ms=ms) for one, ms in zip(networks, times, strict=True)]
    text = table(rows, options)
    print(text)
    if options.save:
        stem = RESULTS / f"networks-{time.strftime('%Y-%m-%d')}"
        stem.with_suffix(".md").write_text(text)
        values = {"machine": machine().processor, "rows": [asdict(row) for row in rows]}
        stem.with_suffix(".json").write_text(json.dumps(values, indent=2) + "\n")
        figure(rows, stem.with_suffix(".png"))


def trained(name: str, options: argparse.Namespace) -> Trained:
    """Train a network and score it, unless that has been done."""
    run = run_of(name, options)
    done = run / "scores.json"
    if done.exists():
        return Trained(**json.loads(done.read_text()))
    settings = TrainSettings.model_validate({
        "data": options.data, "layout": "pairs", "test_fraction": 0.2, "class_name": "nucleus",
        "epochs": options.epochs, "steps_per_epoch": options.steps, **NETWORKS[name],
    })  # fmt: skip
    start = time.perf_counter()
    fit(settings, run, note=lambda words: print(f"{name}: {words}", flush=True))
    seconds = time.perf_counter() - start
    best = load_checkpoint(run / "best.pt")
    unseen = unseen_score(run, options.unseen) if options.unseen else Score()
    network = best.build()
    scores = Trained(
        name, n_weights(network), gflop(network),
        (best.scores["val_seg"] + best.scores["val_f1"]) / 2,
        best.scores["test_seg"], best.scores["test_f1_50"], unseen.seg, unseen.f1[0], seconds,
    )  # fmt: skip
    done.write_text(json.dumps(asdict(scores)))
    print(scores, flush=True)
    return scores


def run_of(name: str, options: argparse.Namespace) -> Path:
    return Path(options.output) / name.replace(" ", "-")


def unseen_score(run: Path, folder: str) -> Score:
    """All frames with truth of a challenge's data set, pooled, inside its field of interest."""
    best = load_checkpoint(run / "best.pt")
    other = {"data": folder, "layout": "ctc", "ignore_border": BORDER}
    settings = best.settings.model_copy(update=other)
    total = Score()
    for source in find_frames(settings):  # one at a time: there may be many
        total += sum(score_whole(best, load_part([source], settings).frames), Score())
    return total


def gflop(network: Network) -> float:
    """Floating-point operations for an image of 1024 x 1024 px, in 10^9."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, network.n_in, 1024, 1024))
    return float(counter.get_total_flops()) / 1e9


def frame_ms(runs: Sequence[Path]) -> list[float]:
    """Median milliseconds that each exported network takes for a frame, all cores, in turns."""
    height, width = (-(-side // 64) * 64 for side in SHAPE)  # the largest stride
    pixels = np.random.default_rng(0).integers(0, 4096, (1, 1, height, width), dtype=np.uint16)
    statistics = np.array([[[0, 4095]]], dtype=np.float32)
    ways: dict[str, Callable[[], Any]] = {
        str(run): partial(exported(run).run, pixels, statistics) for run in runs
    }
    return [1000 * seconds for seconds in medians(ways, 9).values()]


def exported(run: Path) -> Session:
    path = run / "model.onnx"
    export_run(run, path)
    return open_session(open_model(str(path)), "uint16", Target("onnxruntime", "cpu"), cores())


def table(rows: Sequence[Row], options: argparse.Namespace) -> str:
    """The rows as Markdown."""
    unseen = f", {Path(options.unseen).name}" if options.unseen else ""
    lines = [
        "# Networks: scores on unseen images against arithmetic", "",
        f"{machine().processor}, {cores()} cores; torch {torch.__version__}; ONNX Runtime fp32, "
        f"medians of 9; {options.epochs} x {options.steps} steps each, on the same patches of "
        f"{Path(options.data).name}; {time.strftime('%Y-%m-%d')}; `python -m benchmarks.networks`",
        "",
        "| network | weights | GFLOP/Mpx | ms a frame | val (SEG + F1) / 2 | test SEG "
        f"| test F1 at 0.5{unseen and f' |{unseen[1:]} SEG |{unseen[1:]} F1 at 0.5'} | min |",
        "| --- " * (9 if unseen else 7) + "| --- |",
    ]  # fmt: skip
    for r in rows:
        cells = [r.name, f"{r.weights:,}", f"{r.gflop:.0f}", f"{r.frame_ms:.0f}", f"{r.val:.3f}",
                 f"{r.test_seg:.3f}", f"{r.test_f1:.3f}"]  # fmt: skip
        cells += [f"{r.unseen_seg:.3f}", f"{r.unseen_f1:.3f}"] if unseen else []
        lines.append(f"| {' | '.join([*cells, f'{r.trained_s / 60:.0f}'])} |")
    return "\n".join(lines) + "\n"


def figure(rows: Sequence[Row], path: Path) -> None:
    """SEG and F1 against arithmetic and against time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawing, axes = plt.subplots(2, 2, figsize=(11, 8), sharey="row")
    for line, (label, of) in zip(
        axes, (("SEG", ("test_seg", "unseen_seg")), ("F1 at 0.5", ("test_f1", "unseen_f1"))),
        strict=True,
    ):  # fmt: skip
        for ax, cost, unit in zip(line, ("gflop", "frame_ms"),
                                  ("GFLOP a megapixel", "ms a frame, ONNX Runtime fp32"),
                                  strict=True):  # fmt: skip
            for score, marker, of_what in zip(of, "os", ("test part", "unseen"), strict=True):
                ax.plot([getattr(r, cost) for r in rows], [getattr(r, score) for r in rows],
                        marker, label=of_what)  # fmt: skip
                for r in rows:
                    ax.annotate(r.name, (getattr(r, cost), getattr(r, score)), fontsize=7,
                                xytext=(4, 3), textcoords="offset points")  # fmt: skip
            ax.set(xlabel=unit, ylabel=label, xscale="log")
            ax.grid(alpha=0.3)
            ax.legend()
    drawing.tight_layout()
    drawing.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
