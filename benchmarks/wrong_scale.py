"""A run that finds background everywhere, and its cure: `python -m benchmarks.wrong_scale`.

    python -m benchmarks.wrong_scale --data DIR [--output runs/wrong-scale] [--epochs 4]
                                     [--steps 100] [--save]

A refined model of the heart in the literature predicts background everywhere. Here it is made on
purpose: an encoder learns from raw pixels of 0 to 255, and is then kept as it is under a network
whose pixels are 0 to 1. Its normalisations hand on constants. The same encoder is then told what
white was (--transfer-white), and then left free to learn. DIR holds heart_mri/ and dsb2018/, as for
`benchmarks.transfer`, whose slices and network are used. A run that --output holds is not trained
again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `stackseg train` has it

from benchmarks.record import RESULTS
from benchmarks.transfer import CHANNELS, halved, heart_settings, train_source
from engine.job.report import machine
from engine.plan.resources import cores
from train.fit import fit

RAW = {"normalisation": {"policy": "range", "low": 0, "high": 1}, "input_range": None}
NOTES = "notes.json"
CHECKED = ("transferred encoder", "nothing but background", "never finds", "every class")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="heart_mri/ and dsb2018/")
    parser.add_argument("--output", type=Path, default=Path("runs/wrong-scale"))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=100, help="per epoch")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/*.md")
    options = parser.parse_args()
    hearts = halved(options.data / "heart_mri", options.output / "hearts")
    source = train_source(
        "nuclei", options.data, options.output, options.epochs, options.steps, **RAW
    )
    parts = [
        part(title, hearts, options.output / name, values, options)
        for name, (title, values) in ways(source, options.epochs).items()
    ]
    text = report(parts, options)
    print(text)
    if options.save:
        (RESULTS / f"wrong-scale-{time.strftime('%Y-%m-%d')}.md").write_text(text)


def ways(source: Path, epochs: int) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """The failure and what cures it: a folder's name, a title, and settings."""
    taken = {"transfer": str(source)}
    frozen = taken | {"freeze_encoder": epochs}
    white = {"transfer_white": 255.0}
    return {
        "failure": ("`--freeze-encoder`, pixels of 0 to 1", frozen),
        "free": ("the encoder learns, pixels of 0 to 1", taken),
        "white": ("frozen, with `--transfer-white 255`", frozen | white),
        "cured": (
            "`--transfer-white 255`, and the encoder learns, for twice as many epochs",
            taken | white | {"epochs": 2 * epochs},
        ),
    }


def part(
    title: str, hearts: Path, run: Path, values: Mapping[str, Any], options: argparse.Namespace
) -> str:
    """One run: its validation by epoch, and what it said of its predictions."""
    if not (run / "summary.json").exists():
        said: list[str] = []
        settings = heart_settings(hearts, 0, options.epochs, options.steps, values)
        fit(settings, run, note=said.append)
        (run / NOTES).write_text(json.dumps(said))
    notes = [words for words in json.loads((run / NOTES).read_text())
             if any(part in words for part in CHECKED)]  # fmt: skip
    with (run / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    dice = ", ".join(f"{float(row['val_mean_dice'] or 0):.3f}" for row in rows)
    accuracy = ", ".join(f"{float(row['val_accuracy']):.3f}" for row in rows)
    quoted = [f"> {words}\n" for words in notes] or ["Nothing was remarked.\n"]
    return "\n".join([
        f"## {title[0].upper()}{title[1:]}", "",
        f"Validation by epoch: mean Dice {dice}; accuracy {accuracy}.", "", *quoted,
    ])  # fmt: skip


def report(parts: list[str], options: argparse.Namespace) -> str:
    """The file as Markdown."""
    return "\n".join([
        "# An encoder of another scale", "",
        f"{machine().processor}, {cores()} cores, shared; {time.strftime('%Y-%m-%d')}; "
        f"`python -m benchmarks.wrong_scale --epochs {options.epochs} --steps {options.steps}`, "
        "seed 0", "",
        f"unet-transfer {'-'.join(map(str, CHANNELS))} on slices of the heart at half of their "
        "resolution. The encoder learnt the foreground of nuclei (dsb2018) from raw pixels of 0 to "
        "255. Quoted is what `stackseg train` says by itself.", "", *parts,
    ])  # fmt: skip


if __name__ == "__main__":
    main()
