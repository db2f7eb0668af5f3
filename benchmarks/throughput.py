"""Throughput of the engine, as ratios within one run: `make bench`.

    python -m benchmarks.throughput [--device cpu|cuda[:N]] [--frames 40] [--repeats 5] [--save]

Three questions, each answered by medians over the repeats, the variants taking turns so that a
machine whose speed drifts does so for all of them:

1. How long does the network take for a tile of 512 x 512 px? The U-Net paper (Ronneberger et
   al. 2015) gives "less than a second on a recent GPU" for its network of 31 million weights.
2. What does a whole job reach beside a plain loop over the same frames that does the same work
   one frame after the other, with every core given to the runtime?
3. On CUDA: do labels and probabilities equal the CPU's?
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from benchmarks.record import taking_turns
from engine.geometry.tiling import FrameTiling
from engine.inference.outputs import Outputs
from engine.inference.tiles import predict
from engine.job.job import run_job
from engine.job.report import machine
from engine.labels.postprocessing import Postprocessing
from engine.model.file import ModelFile, open_model
from engine.model.spec import Normalisation
from engine.model.statistics import frame_statistics
from engine.plan.resources import cores
from engine.plan.settings import JobSettings
from engine.runtimes.base import Target
from engine.runtimes.registry import open_session, resolve, runtime_of
from engine.steps.frame import label_whole
from engine.steps.task import Stopwatch
from engine.steps.worker import release
from engine.synthetic import TimeLapse
from tests import networks

SHAPE = (700, 1100)
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/*.md")
    options = parser.parse_args()
    target = resolve(Target(device=options.device))
    device = target.device
    command = f"benchmarks.throughput --device {device}"
    lines = header(f"Throughput on {device}", command, target, options.repeats)
    lines += tiles(target, options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        stack = write_frames(Path(folder), options.frames)
        lines += jobs(Path(folder), stack, target, options.repeats)
        if device != "cpu":
            lines += agreement(stack, target)
    text = "\n".join(lines) + "\n"
    print(text)
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        kind = device.partition(":")[0]
        path = RESULTS / f"throughput-{kind}-{time.strftime('%Y-%m-%d')}.md"
        path.write_text(text)
        print(f"written to {path}", file=sys.stderr)


def header(title: str, command: str, target: Target, repeats: int) -> list[str]:
    """What the figures were measured on, and with which `command`."""
    here = machine()
    gpu = f", {gpu_name()}" if target.device != "cpu" else ""
    return [
        f"# {title}",
        "",
        f"{here.processor}, {cores()} cores{gpu}; {runtime_of(target.runtime).build(target)}; "
        f"medians of {repeats}; {time.strftime('%Y-%m-%d')}; "
        f"`python -m {command}`",
        "",
    ]


def gpu_name() -> str:
    """Name of the GPU as its driver tells it."""
    import subprocess

    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.strip() or "GPU"


def medians(variants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each variant; they take turns, after one turn that does not count."""
    found = taking_turns(variants, repeats)
    return {name: statistics.median(values) for name, values in found.items()}


def papers_unet(folder: Path) -> ModelFile:
    """The paper's network: 64 to 1024 channels, 31 million weights (random: time is the same)."""
    network = networks.unet((64, 128, 256, 512, 1024), positive=False)
    spec = networks.spec(network, normalisation=Normalisation(policy="range", low=0, high=65535))
    return open_model(str(networks.save(folder / "paper.onnx", network, spec)))


def tiles(target: Target, repeats: int) -> list[str]:
    """Seconds of the network alone for a 512 x 512 tile."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 65536, (1, 1, 512, 512), dtype=np.uint16)
    statistics_ = np.array([[[0, 65535]]], dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        models = {"nuclei, 16-32-64-128": open_model("nuclei")}
        models["the paper's, 64..1024"] = papers_unet(Path(folder))
        variants = {}
        for name, model in models.items():
            session = open_session(model, "uint16", target, cores())
            variants[name] = lambda session=session: session.run(pixels, statistics_)
        found = medians(variants, repeats)
    rows = [f"| {name} | {1000 * s:.1f} | {1 / s:.1f} |" for name, s in found.items()]
    return [
        "## The network alone, one tile of 512 x 512 px",
        "",
        "| network | ms a tile | times faster than the paper's second |",
        "| --- | --- | --- |",
        *rows,
        "",
    ]


def write_frames(folder: Path, n_frames: int) -> Path:
    """A synthetic time-lapse as an uncompressed TIFF."""
    lapse = TimeLapse(shape=(n_frames, *SHAPE), seed=0)
    path = folder / "frames.tif"
    with tifffile.TiffWriter(path) as writer:
        for t in range(n_frames):
            writer.write(lapse.frame(t)[0], contiguous=True, photometric="minisblack")
    return path


def jobs(folder: Path, stack: Path, target: Target, repeats: int) -> list[str]:
    """Frames a second of whole jobs and of the plain loop."""
    n_frames = len(tifffile.TiffFile(stack).pages)
    counter = iter(range(10**6))

    def job(workers: int) -> Callable[[], Any]:
        return lambda: run_job(
            JobSettings(
                inputs=(str(stack),),
                model="nuclei",
                output=folder / f"job{next(counter)}",
                device=target.device,
                workers=workers,
            )
        )

    variants: dict[str, Callable[[], Any]] = {
        "plain loop, all cores to the runtime": lambda: plain_loop(stack, target)
    }
    for workers in sorted({1, 2, cores()}):
        variants[f"job, {workers} block(s) in flight"] = job(workers)
    found = medians(variants, repeats)
    base = next(iter(found.values()))
    rows = [
        f"| {name} | {1000 * s / n_frames:.1f} | {n_frames / s:.2f} | {base / s:.2f} |"
        for name, s in found.items()
    ]
    return [
        f"## Whole jobs, {n_frames} frames of {SHAPE[0]} x {SHAPE[1]}, start and tables included",
        "",
        "| way | ms a frame | frames/s | beside the plain loop |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
    ]


def plain_loop(stack: Path, target: Target) -> int:
    """What a script would do: read, segment, measure and keep, one frame after the other."""
    release()
    model = open_model("nuclei")
    session = open_session(model, "uint16", target, cores())
    tiling = FrameTiling(*SHAPE, model.spec.stride, model.halo or 0, None)
    postprocessing = Postprocessing(model.spec.threshold, model.spec.min_area)
    kept = []
    with tifffile.TiffFile(stack) as tif:
        for page in tif.pages:
            frame = page.asarray()[None]
            statistics = frame_statistics(frame, model.spec.normalisation)
            probability = predict(frame, statistics, tiling, session)
            outputs = Outputs(probability, model.spec.n_class_outputs)
            watch = Stopwatch()
            pixels = dict(enumerate(frame))
            kept.append(label_whole(pixels, 0, outputs, model.spec, postprocessing, None, watch))
    with tempfile.NamedTemporaryFile(suffix=".tif") as file:
        tifffile.imwrite(file, np.stack([k.labels for k in kept]), compression="zstd")
    return len(kept)


def agreement(stack: Path, target: Target) -> list[str]:
    """Largest difference of probabilities, and differing pixels of labels, against the CPU."""
    model = open_model("nuclei")
    here, there = (
        open_session(model, "uint16", one, cores())
        for one in (replace(target, device="cpu"), target)
    )
    worst, differing, total = 0.0, 0, 0
    for page in tifffile.TiffFile(stack).pages[:5]:
        frame = page.asarray()[None, : SHAPE[0] // 8 * 8, : SHAPE[1] // 8 * 8]
        values = frame_statistics(frame, model.spec.normalisation)
        a, b = (r.run(frame[None], values[None])[0, 0] for r in (here, there))
        worst = max(worst, float(np.abs(a - b).max()))
        differing += int(((a >= 0.5) != (b >= 0.5)).sum())
        total += a.size
    return [
        "## Agreement with the CPU",
        "",
        f"Largest difference of a probability: {worst:.2e}. "
        f"Pixels on the other side of the threshold: {differing} of {total:,}.",
        "",
    ]


if __name__ == "__main__":
    main()
