"""The heart's networks at full width, trained, exported and run: `python -m benchmarks.full_width`.

    python -m benchmarks.full_width --data DIR [--output runs/full-width] [--steps 8] [--save]

DIR is heart_mri/. For the preset `heart` (64-128-256) and `unet-transfer` (64-128-256-512-1024),
one short epoch on a few slices of three patients, by the commands as a user gives them: train,
export, segment. Then the exported model's probabilities and the class map on disk are set against
PyTorch's on the slices that were held back.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import zarr

from benchmarks.patients import part_frames
from benchmarks.record import RESULTS
from engine.job.report import machine
from engine.plan.resources import cores
from train.checkpoint import load_checkpoint
from train.data.frames import LabelledFrame
from train.data.patches import normalised
from train.networks import Network, n_weights
from train.predict import predict_logits
from train.summary import read_summary

NETWORKS: Mapping[str, Sequence[str]] = {
    "heart": ("--preset", "heart"),
    "unet-transfer": ("--arch", "unet-transfer"),
}
PATIENTS = ("patient022", "patient041", "patient049")  # of few and small slices
SLICES = ("frame01_z02", "frame01_z03", "frame01_z04", "frame11_z03")
COMMAND = Path(sys.executable).with_name("stackseg")


@dataclass(frozen=True)
class Row:
    """One network, and how far apart PyTorch and the exported model are."""

    name: str
    weights: int
    train_s: float
    deviation: float  # largest difference of a probability
    differ: int  # pixels of the class map that differ
    pixels: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="heart_mri/")
    parser.add_argument("--output", type=Path, default=Path("runs/full-width"))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/*.md")
    options = parser.parse_args()
    data = few_slices(options.data, options.output / "data")
    rows = [measured(name, data, options.output / name, options.steps) for name in NETWORKS]
    text = report(rows, options.steps)
    print(text)
    if options.save:
        (RESULTS / f"full-width-{time.strftime('%Y-%m-%d')}.md").write_text(text)


def few_slices(hearts: Path, target: Path) -> Path:
    """A few slices of three patients, as a data set of their own."""
    for folder in ("images", "masks"):
        (target / folder).mkdir(parents=True, exist_ok=True)
        for name in (f"{patient}_{part}.png" for patient in PATIENTS for part in SLICES):
            shutil.copyfile(hearts / folder / name, target / folder / name)
    return target


def measured(name: str, data: Path, output: Path, steps: int) -> Row:
    """Train, export, segment and compare one network."""
    run, model, result = output / "run", output / "heart.onnx", output / "result"
    if not (run / "summary.json").exists():
        stackseg("train", "--data", str(data), "--layout", "color-masks", "--palette", "acdc",
                 *NETWORKS[name], "--epochs", "1", "--steps-per-epoch", str(steps), "--batch", "2",
                 "--patch", "64", "--test-fraction", "0.34", "--val-fraction", "0.34",
                 "--strip-every", "0", "--output", str(run))  # fmt: skip
    best = load_checkpoint(run / "best.pt")
    network, frames = best.build(), part_frames(best.settings)
    model.unlink(missing_ok=True)
    stackseg("export", str(run), "--output", str(model))
    held_back = output / "held-back"
    held_back.mkdir(exist_ok=True)
    for frame in frames:
        shutil.copyfile(data / frame.name, held_back / Path(frame.name).name)
    shutil.rmtree(result, ignore_errors=True)
    stackseg("segment", str(held_back), "--model", str(model), "--output", str(result))
    found = zarr.open_array(result / "held-back.zarr/labels/heart/0", mode="r")[...]
    expected = np.stack([probability(network, frame).argmax(axis=0) for frame in frames])
    return Row(
        name,
        n_weights(network),
        read_summary(run).seconds,
        max(deviation(model, network, frame) for frame in frames),
        int(np.count_nonzero(np.squeeze(found) != expected)),
        expected.size,
    )


def probability(network: Network, frame: LabelledFrame) -> np.ndarray:
    """PyTorch's probabilities (K, Y, X) of a frame."""
    return torch.softmax(predict_logits(network, normalised(frame)), dim=0).numpy()


def deviation(model: Path, network: Network, frame: LabelledFrame) -> float:
    """The largest difference between ONNX Runtime's probabilities and PyTorch's."""
    height, width = (side // network.stride * network.stride for side in frame.shape)
    cropped = frame.image[None, :, :height, :width].astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"image": cropped, "statistics": frame.statistics[None]})
    ours = torch.softmax(predict_logits(network, normalised(frame)[:, :height, :width]), dim=0)
    return float(np.abs(theirs[0] - ours.numpy()).max())


def stackseg(*arguments: str) -> None:
    """Run the command; SystemExit where it fails."""
    print("stackseg", *arguments, flush=True)
    if subprocess.run([COMMAND, *arguments], check=False).returncode:
        raise SystemExit(f"stackseg {arguments[0]} failed")


def report(rows: Sequence[Row], steps: int) -> str:
    """The table as Markdown."""
    lines = [
        f"| {r.name} | {r.weights:,} | {r.train_s:.0f} s | {r.deviation:.1e} | "
        f"{r.differ} of {r.pixels:,} |"
        for r in rows
    ]
    return "\n".join([
        "# The heart's networks at full width", "",
        f"{machine().processor}, {cores()} cores, shared; torch {torch.__version__}, ONNX Runtime "
        f"{onnxruntime.__version__}; {time.strftime('%Y-%m-%d')}; `python -m benchmarks.full_width "
        f"--data heart_mri --steps {steps}`", "",
        f"One epoch of {steps} steps of 2 patches of 64 px on 4 slices of a patient, by `stackseg "
        "train`; `stackseg export`; `stackseg segment` on the 4 slices of another patient. So "
        "short a training teaches little: it is measured that both sides compute the same.", "",
        "| network | weights | epoch | largest difference of a probability | pixels of the class "
        "map that differ |", "| --- | --- | --- | --- | --- |", *lines,
    ]) + "\n"  # fmt: skip


if __name__ == "__main__":
    main()
