"""The bundled network by runtime and precision: speed, and what becomes of the labels.

    python -m benchmarks.precision [--model nuclei] [--repeats 5] [--threads 1] [--fine-tune 80]
                                   [--output FILE.md]

Rows are the runtimes and precisions that work here, and files in fp16 and int8 made for the
occasion. int8 is made with all convolutions, with those that suffer most left in fp32, as `export`
does, and fine-tuned where steps are given. Synthetic frames calibrate it and, where STACKSEG_DATA
is set, frames of Fluo-N2DL-HeLa 01 that are not scored. The gate is left aside, to see what it
refuses.

Times are processor time of one frame from memory, of hela/01 where it is there, all rows taking
turns: on a busy machine it can be compared within one run where wall clock can't. F1 is of the
labels at IoU 0.9 against fp32; SEG is against the silver truth of HeLa, without 25 px at the edges.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.record import header
from engine.geometry.tiling import FrameTiling
from engine.inference.agreement import Agreement, Look, compare_all
from engine.inference.tiles import predict
from engine.job.tuned import candidates
from engine.labels.postprocessing import Postprocessing
from engine.model.file import ModelFile, open_model
from engine.model.spec import ModelSpec
from engine.model.statistics import frame_statistics
from engine.results.score.metrics import Score, score
from engine.runtimes.base import Session
from engine.runtimes.registry import REFERENCE, open_session
from engine.synthetic import TimeLapse
from export.half import halved
from export.inside import named
from export.lower import attempts
from export.quantise import LARGEST, Quantiser

SYNTHETIC, MARGIN = 4, 25  # frames; px


@dataclass
class Row:
    """A model file by a target, and what was measured of it."""

    name: str
    session: Session
    ms: list[float] = field(default_factory=list)
    agreement: dict[str, Agreement] = field(default_factory=dict)
    score: Score = field(default_factory=Score)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--calibration", type=int, default=4, help="frames of each kind")
    parser.add_argument("--fine-tune", type=int, default=0, metavar="STEPS")
    parser.add_argument("--output", type=Path, help="file to write  [default: stdout]")
    options = parser.parse_args()
    model = open_model(options.model)
    seeds = range(100, 100 + options.calibration)
    calibration = [look(model, synthetic(seed)) for seed in seeds]
    looks = {"synthetic": [look(model, synthetic(seed)) for seed in range(SYNTHETIC)]}
    truths: list[np.ndarray] = []
    if data := os.environ.get("STACKSEG_DATA"):
        frames, truths = hela(Path(data), slice(0, None, 12))
        looks["hela/01"] = [look(model, frame) for frame in frames]
        others, _ = hela(Path(data), slice(5, None, 12))
        calibration += [look(model, frame) for frame in others[: options.calibration]]
    rows = list(rows_of(model, calibration, options))
    timed = looks.get("hela/01", looks["synthetic"])[0]
    for _ in range(options.repeats + 1):
        for row in rows:
            busy = time.process_time()
            predict(timed.pixels, timed.statistics, timed.tiling, row.session)
            row.ms.append(1000 * (time.process_time() - busy))
    reference = open_session(model, "uint16", REFERENCE, options.threads)
    judge(rows, reference, model.spec, looks, truths)
    command = f"benchmarks.precision --repeats {options.repeats} --threads {options.threads}"
    command += f" --calibration {options.calibration} --fine-tune {options.fine_tune}"
    lines = header("Precision", command, rows[0].name, options.repeats)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    lines += [
        f"Model {model.sha256[:12]}, {options.threads} thread(s); load of the machine {load}. "
        f"int8 calibrated on {len(calibration)} frames.",
        "",
        *table(rows, list(looks), bool(truths)),
    ]
    text = "\n".join(lines) + "\n"
    if options.output:
        options.output.write_text(text)
    else:
        print(text)


def synthetic(seed: int) -> np.ndarray:
    return TimeLapse(shape=(60, 512, 704), seed=seed).frame(20 + 5 * (seed % 8))[0]


def hela(data: Path, chosen: slice) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frames with silver truth, and that truth."""
    import tifffile

    paths = sorted((data / "hela/01_ST/SEG").glob("man_seg*.tif"))[chosen]
    names = [f"hela/01/t{path.stem[-3:]}.tif" for path in paths]
    return [tifffile.imread(data / one) for one in names], [tifffile.imread(p) for p in paths]


def look(model: ModelFile, frame: np.ndarray) -> Look:
    spec, (height, width) = model.spec, frame.shape
    how = Postprocessing(spec.threshold, spec.min_area, instances=spec.instances)
    if spec.cores is not None:
        how = replace(
            how, core_threshold=spec.cores.threshold, growth=spec.cores.growth,
            pinhole=spec.cores.pinhole, unreached=spec.cores.unreached,
        )  # fmt: skip
    tiling = FrameTiling(height, width, spec.stride, 0, None)
    return Look(frame[None], frame_statistics(frame[None], spec.normalisation), tiling, how)


def rows_of(model: ModelFile, calibration: list[Look], options: argparse.Namespace) -> list[Row]:
    found, threads, targets = [], options.threads, candidates("cpu")
    for target in targets:
        session = open_session(model, "uint16", target, threads)
        found.append(Row(f"{target.runtime} {target.precision}", session))
    files = {"file in fp16": halved(named(model))}
    with tempfile.TemporaryDirectory() as folder:
        quantise = Quantiser(named(model), calibration, Path(folder))
        for left, graph in attempts(model, quantise, calibration):
            kept = f", {len(left)} of the convolutions in fp32" if left else ""
            files[f"file in int8{kept}"] = graph
        if options.fine_tune:
            from export.finetune import fine_tuned

            quantise.take(
                fine_tuned(
                    named(model), quantise([]), calibration,
                    largest=LARGEST, steps=options.fine_tune, seed=0,
                )
            )  # fmt: skip
            files[f"file in int8, fine-tuned in {options.fine_tune} steps"] = quantise([])
    for title, graph in files.items():
        lowered = replace(model, data=graph.SerializeToString())
        for target in targets:
            if target.precision == "fp32":
                session = open_session(lowered, "uint16", target, threads)
                found.append(Row(f"{target.runtime}, {title}", session))
    return found


def judge(
    rows: list[Row],
    reference: Session,
    spec: ModelSpec,
    looks: dict[str, list[Look]],
    truths: list[np.ndarray],
) -> None:
    for kind, frames in looks.items():
        for number, one in enumerate(frames):
            wanted = one.labels(reference, spec.n_class_outputs)
            for row in rows:
                labels = one.labels(row.session, spec.n_class_outputs)
                found = compare_all([labels], [wanted], [one])
                row.agreement[kind] = row.agreement.get(kind, Agreement()) + found
                if kind == "hela/01":
                    row.score += score(labels, truths[number], MARGIN)


def table(rows: list[Row], kinds: list[str], has_truth: bool) -> list[str]:
    objects = [f"{rows[0].agreement[kind].objects:,} objects" for kind in kinds]
    titles = [
        "setting", "ms of processor time a frame, median (least)", "of ONNX Runtime fp32",
        *(f"F1 at 0.9, {kind} ({n})" for kind, n in zip(kinds, objects, strict=True)),
        *(f"pixels that differ, {kind}" for kind in kinds),
        *(["SEG, hela/01"] if has_truth else []),
    ]  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    base = statistics.median(rows[0].ms[1:])
    for row in rows:
        median = statistics.median(row.ms[1:])  # the first run warms up
        cells = [
            row.name,
            f"{median:.0f} ({min(row.ms[1:]):.0f})",
            f"{median / base:.2f}",
            *(f"{row.agreement[kind].f1 or 0:.4f}" for kind in kinds),
            *(f"{row.agreement[kind].changed_fraction:.3%}" for kind in kinds),
            *([f"{row.score.seg:.4f}"] if has_truth else []),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
