"""Does an encoder from other images help with the heart: `python -m benchmarks.transfer`.

    python -m benchmarks.transfer --data DIR [--output runs/transfer] [--source NAME ...]
                                  [--epochs 15] [--steps 200] [--seeds 3] [--only SEED] [--save]

DIR holds heart_mri/ (slices of patients, colour masks), and for each --source dsb2018/ (nuclei) or
heart_ct/ (heart-ct). A narrow U-Net first learns the foreground of a source. Its encoder then
starts networks for the heart: frozen for the whole run, or thawed level by level, beside the same
network from scratch. All see the same number of epochs, on all training patients and on a tenth of
them, which differ from seed to seed. Scores are Dice on the same test patients, by patient, phase
and structure.

So that this takes minutes, every second slice is taken, at half of its resolution, and CT, in which
a heart is twice as large, at a quarter. A run that --output holds is not trained again. --only
trains the runs of one seed and stops: several such commands may share the work.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `stackseg train` has it

import imagecodecs
import numpy as np
import torch
from torch import Tensor

from benchmarks.patients import NAME, by_volume, confusions, dice, means, part_frames
from benchmarks.record import RESULTS
from engine.job.report import machine
from engine.plan.resources import cores
from train.checkpoint import load_checkpoint
from train.data.dataset import find_frames
from train.data.frames import LabelledFrame
from train.data.patches import normalised
from train.data.splits import split_frames
from train.fit import fit
from train.networks import UNet
from train.settings import TrainSettings
from train.summary import read_summary

CHANNELS = (8, 16, 32, 64)
PATCH, BATCH, RATE = 64, 4, 0.006
TEST, VAL = 0.2, 0.15  # shares of the patients
NUCLEI = 120  # images of the source
SIDE = 72  # px of frames whose features are looked at, a multiple of the stride
ALIKE: dict[str, Any] = {"workers": 0, "strip_every": 0, "device": "cpu", "precision": "fp32"}
SOURCES = {"nuclei": "nuclei (dsb2018)", "heart-ct": "hearts in CT (heart_ct)"}
COLOURS = {
    "scratch": "#333333",
    "nuclei, frozen": "#00798c",
    "nuclei, step by step": "#d1495b",
    "heart-ct, frozen": "#66b2bd",
    "heart-ct, step by step": "#e8a0a9",
}


@dataclass(frozen=True)
class Outcome:
    """One run on the heart."""

    way: str
    patients: int  # that teach
    seed: int
    dice: float  # mean over the structures of the test patients
    val: float  # best mean Dice of the validation part
    first: float  # mean Dice of the validation part after the first epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True,
                        help="heart_mri/, dsb2018/ and heart_ct/")  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--source", nargs="+", choices=[*SOURCES], default=[*SOURCES])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--steps", type=int, default=200, help="per epoch")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=int, metavar="SEED", help="train these runs, and stop")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/*")
    options = parser.parse_args()
    hearts = halved(options.data / "heart_mri", options.output / "hearts")
    sources = {
        name: train_source(name, options.data, options.output, options.epochs, options.steps)
        for name in options.source
    }
    if options.only is not None:
        list(study(hearts, sources, options, [options.only]))
        return
    outcomes = list(study(hearts, sources, options, range(options.seeds)))
    text = report(outcomes, sources, options)
    print(text)
    if options.save:
        stem = RESULTS / f"transfer-{time.strftime('%Y-%m-%d')}"
        stem.with_suffix(".md").write_text(text)
        draw(stem.with_suffix(".png"), outcomes)


def study(
    hearts: Path, sources: Mapping[str, Path], options: argparse.Namespace, seeds: Sequence[int]
) -> Iterator[Outcome]:
    """Every way on all patients and on a tenth, seed by seed."""
    for seed in seeds:
        few = tenth(hearts, options.output / f"tenth-{seed}", seed)
        for data in (hearts, few):
            for way, values in ways(sources, options.epochs).items():
                name = way.replace(", ", "-").replace(" ", "-")
                run = options.output / f"{name}-{data.name}-{seed}"
                given = heart_settings(data, seed, options.epochs, options.steps, values)
                if not (run / "summary.json").exists():
                    fit(given, run, note=lambda _: None)
                yield outcome(way, run, seed)
                print(f"{run.name}: Dice {outcome(way, run, seed).dice:.3f}", flush=True)


def ways(sources: Mapping[str, Path], epochs: int) -> dict[str, dict[str, Any]]:
    """What each way to start sets. Thawing begins at the coarsest level, after the first epoch."""
    levels = range(len(CHANNELS) - 1, -1, -1)
    thaw = tuple((2 + at, level) for at, level in enumerate(levels))
    found: dict[str, dict[str, Any]] = {"scratch": {}}
    for name, run in sources.items():
        found[f"{name}, frozen"] = {"transfer": str(run), "freeze_encoder": epochs}
        found[f"{name}, step by step"] = {"transfer": str(run), "unfreeze": thaw}
    return found


def heart_settings(
    data: Path, seed: int, epochs: int, steps: int, values: Mapping[str, Any]
) -> TrainSettings:
    """A run on the heart; of a tenth of the patients, with the same validation and test."""
    patients = len({path.name[:10] for path in (data / "images").iterdir()})
    held, chosen = (round(40 * share) for share in (TEST, VAL))
    network = {"arch": "unet-transfer", "channels": CHANNELS, "dropout": 0.1}
    steps_of = {"epochs": epochs, "steps_per_epoch": steps, "patch": PATCH, "batch": BATCH}
    teaching = {"lr": RATE, "dice": 1.0, "augment": "upright", "seed": seed}
    shares = {"test_fraction": held / patients, "val_fraction": chosen / patients}
    where = {"data": str(data), "layout": "color-masks", "palette": "acdc"}
    return TrainSettings.model_validate(
        {**where, **network, **steps_of, **teaching, **shares, **ALIKE, **values}
    )


def train_source(
    name: str, given: Path, output: Path, epochs: int, steps: int, **values: Any
) -> Path:
    """The run whose encoder is taken: the foreground of a source, with as many steps."""
    data, run = output / name, output / f"source-{name}"
    if name == "nuclei":
        where = {"data": str(some_nuclei(given / "dsb2018", data)), "layout": "pairs"}
    else:
        split = {"group": r"^(10\d)", "val_fraction": 0.3}
        where = {"data": str(quartered(given / "heart_ct", data)), "layout": "color-masks",
                 "palette": "binary", **split}  # fmt: skip
    if not (run / "summary.json").exists():
        how = TrainSettings.model_validate({
            **where, "channels": CHANNELS, "conv_bias": True, "instances": "none", "patch": PATCH,
            "batch": BATCH, "epochs": epochs, "steps_per_epoch": steps, **ALIKE, **values,
        })  # fmt: skip
        fit(how, run, note=lambda _: None)
    return run


def some_nuclei(nuclei: Path, target: Path) -> Path:
    """The first images, with their labels."""
    if not target.exists():
        for folder in ("images", "labels"):
            (target / folder).mkdir(parents=True)
            for path in sorted((nuclei / folder).iterdir())[:NUCLEI]:
                (target / folder / path.name).symlink_to(path.resolve())
    return target


def quartered(slices: Path, target: Path) -> Path:
    """CT at a quarter of its resolution, image and mask by means."""
    if not target.exists():
        for folder in ("images", "masks"):
            (target / folder).mkdir(parents=True)
            for path in sorted((slices / folder).iterdir()):
                pixels = imagecodecs.jpeg8_decode(path.read_bytes())
                small = pixels.reshape(pixels.shape[0] // 4, 4, -1, 4).mean(axis=(1, 3))
                png = imagecodecs.png_encode(np.rint(small).astype(np.uint8))
                (target / folder / f"{path.stem}.png").write_bytes(png)
    return target


def halved(hearts: Path, target: Path) -> Path:
    """Every second slice at half of its resolution: images by means, masks by their first pixel."""
    if target.exists():
        return target
    for folder in ("images", "masks"):
        (target / folder).mkdir(parents=True)
        for path in sorted((hearts / folder).glob("*_z?[02468].png")):
            pixels = imagecodecs.png_decode(path.read_bytes())
            y, x = (side // 2 * 2 for side in pixels.shape[:2])
            pixels = pixels[:y, :x]
            if folder == "images":
                quarters = [pixels[a::2, b::2].astype(np.float32) for a in (0, 1) for b in (0, 1)]
                small = np.rint(np.mean(quarters, axis=0)).astype(np.uint8)
            else:
                small = np.ascontiguousarray(pixels[::2, ::2])
            (target / folder / path.name).write_bytes(imagecodecs.png_encode(small))
    return target


def tenth(hearts: Path, target: Path, seed: int) -> Path:
    """The same validation and test patients, and a tenth of those that teach, drawn by a seed."""
    if target.exists():
        return target
    how = heart_settings(hearts, 0, 1, 1, {})
    split = split_frames(find_frames(how), how.val_fraction, how.test_fraction)
    teaching = sorted({source.group for source in split.train})
    rng = np.random.default_rng(seed)
    left_out = set(rng.permutation(teaching)[max(round(len(teaching) / 10), 1) :].tolist())
    for folder in ("images", "masks"):
        (target / folder).mkdir(parents=True)
        for path in sorted((hearts / folder).iterdir()):
            match = NAME.match(path.stem)
            assert match is not None
            if match[1] not in left_out:
                (target / folder / path.name).symlink_to(path.resolve())
    return target


def outcome(way: str, run: Path, seed: int) -> Outcome:
    """Scores of a finished run on its test patients."""
    best = load_checkpoint(run / "best.pt")
    names = [one.name for one in best.settings.classes]
    tables = confusions(best, part_frames(best.settings))
    mean = means(dice(by_volume(tables), names))
    history = (run / "history.csv").read_text().splitlines()
    column = history[0].split(",").index("val_mean_dice")
    first = float(history[1].split(",")[column] or 0)
    images = list((Path(best.settings.data) / "images").iterdir())
    patients = len({path.name[:10] for path in images}) - round(40 * TEST) - round(40 * VAL)
    val = best.scores.get("val_mean_dice", 0.0)
    return Outcome(way, patients, seed, float(np.mean(list(mean.values()))), val, first)


@torch.no_grad()
def directions(run: Path, frames: Sequence[LabelledFrame]) -> list[float]:
    """In how many directions the features of each level of an encoder vary on these frames.

    The participation ratio of the covariance's eigenvalues: 1 where all channels say the same, and
    the number of channels where each says something of its own.
    """
    network, found = load_checkpoint(run / "best.pt").build(), []
    assert isinstance(network, UNet)
    x = torch.stack([_middle(normalised(frame)) for frame in frames])
    for level, encode in enumerate(network.encoders):
        x = encode(network.pool(x) if level else x)
        values = torch.linalg.eigvalsh(torch.cov(x.movedim(1, 0).flatten(1)))
        found.append(float(values.sum() ** 2 / values.square().sum()))
    return found


def _middle(image: Tensor) -> Tensor:
    """SIDE x SIDE px, (C, Y, X)."""
    top, left = ((length - SIDE) // 2 for length in image.shape[1:])
    return image[:, top : top + SIDE, left : left + SIDE]


def report(
    outcomes: Sequence[Outcome], sources: Mapping[str, Path], options: argparse.Namespace
) -> str:
    """The table as Markdown."""
    rows = []
    for patients in sorted({one.patients for one in outcomes}, reverse=True):
        for way in dict.fromkeys(one.way for one in outcomes):
            some = [o for o in outcomes if (o.patients, o.way) == (patients, way)]
            scores = " ".join(f"{o.dice:.3f}" for o in some)
            values = np.array([o.dice for o in some])
            rows.append(
                f"| {patients} | {way} | {values.mean():.3f} | {np.ptp(values):.3f} | {scores} | "
                f"{np.mean([o.first for o in some]):.3f} |"
            )
    seconds = sum(
        read_summary(path.parent).seconds for path in options.output.glob("*/summary.json")
    )
    learnt = options.output / "scratch-hearts-0"
    frames = part_frames(load_checkpoint(learnt / "best.pt").settings, "val")

    def levels(run: Path) -> str:
        return ", ".join(f"{value:.1f}" for value in directions(run, frames))

    learnt_of = "; ".join(f"{SOURCES[name]}, {_val(run)}" for name, run in sources.items())
    features = "; ".join(f"{name} {levels(run)}" for name, run in sources.items())
    return "\n".join([
        "# Transfer to the heart", "",
        f"{machine().processor}, {cores()} cores, shared; {time.strftime('%Y-%m-%d')}; "
        f"`python -m benchmarks.transfer --epochs {options.epochs} --steps {options.steps} "
        f"--seeds {options.seeds}`; {len(outcomes)} runs and their source, {seconds:.0f} s of "
        "training in all", "",
        f"Sources: the foreground of {learnt_of} on their validation parts. Network: "
        f"unet-transfer {'-'.join(map(str, CHANNELS))}. "
        f"{options.epochs} epochs of {options.steps} steps of {BATCH} patches of {PATCH} px. Dice: "
        "mean over structures, test patients and phases.", "",
        "| patients that teach | start | Dice | spread | by seed | validation after epoch 1 |",
        "| --- | --- | --- | --- | --- | --- |", *rows, "",
        f"Directions in which features vary on the heart, level by level, of {CHANNELS} channels "
        f"(participation ratio): {features}; from scratch {levels(learnt)}.", "",
    ])  # fmt: skip


def _val(run: Path) -> str:
    """What a source reached on its own images."""
    scores = load_checkpoint(run / "best.pt").scores
    name = "val_iou" if "val_iou" in scores else "val_mean_dice"
    return f"{name.removeprefix('val_').replace('_', ' ')} {scores[name]:.3f}"


def draw(path: Path, outcomes: Sequence[Outcome]) -> None:
    """A dot for each run and a bar for each mean."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    sizes = sorted({one.patients for one in outcomes}, reverse=True)
    for at, patients in enumerate(sizes):
        ways_tried = list(dict.fromkeys(one.way for one in outcomes))
        for shift, way in enumerate(ways_tried):
            values = [o.dice for o in outcomes if (o.patients, o.way) == (patients, way)]
            x, colour = at + 0.16 * (shift - (len(ways_tried) - 1) / 2), COLOURS[way]
            axes.bar(x, np.mean(values), 0.14, color=colour, alpha=0.5,
                     label=None if at else way)  # fmt: skip
            axes.plot([x] * len(values), values, "o", color=colour, markersize=4)
    axes.set_xticks(range(len(sizes)), [f"{n} patients" for n in sizes])
    axes.set(ylabel="Dice on test patients", ylim=(0, 1))
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, ncols=2, loc="upper right", fontsize=8)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
