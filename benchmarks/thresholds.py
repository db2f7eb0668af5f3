"""What thresholds and growth of cores bring: `python -m benchmarks.thresholds RUN`.

    python -m benchmarks.thresholds RUN --data DIR --frames A:B [--checkpoint last.pt]
                                    [--threshold 0.5] [--min-area 30]

RUN is what `stackseg train` left of instances by cores. Frames A to before B of a challenge's data
set, which the run should not have seen, are labelled with every growth and core threshold, and
scored where their truth counts.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path

import torch

from engine.job.report import machine
from engine.results.score.metrics import Score
from train.checkpoint import load_checkpoint
from train.choose import Frame, score_frame
from train.data.dataset import find_frames, load_part
from train.data.patches import normalised
from train.objects import postprocessing_of
from train.predict import predict_logits, probabilities

GROWTHS = (3, 5)
CORE_THRESHOLDS = (0.7, 0.8, 0.85, 0.9, 0.95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True, help="a challenge's data set")
    parser.add_argument("--frames", required=True, help="A:B")
    parser.add_argument("--checkpoint", default="best.pt")
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--min-area", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    best = load_checkpoint(options.run / options.checkpoint)
    network = best.build().eval()
    first, end = map(int, options.frames.split(":"))
    asked = {"data": options.data, "frames": (first, end)}
    settings = best.settings.model_copy(update=asked)
    frames = [
        Frame(probabilities(predict_logits(network, normalised(one))), one.labels, one.counted)
        for one in load_part(find_frames(settings), settings).frames
    ]
    told = f"{options.run.name}, epoch {best.epoch}; {machine().processor}"
    print(f"{told}; {len(frames)} frames with truth of {options.frames}\n")
    columns = (
        "growth, px", "core threshold", "objects", "SEG", "F1 at 0.5",
        "missed", "joined", "spurious", "DET",
    )  # fmt: skip
    print(f"| {' | '.join(columns)} |\n{'| --- ' * len(columns)}|")
    base = replace(
        postprocessing_of(settings), threshold=options.threshold, min_area=options.min_area
    )
    for growth, core in itertools.product(GROWTHS, CORE_THRESHOLDS):
        rules = replace(base, growth=growth, core_threshold=core)
        found = sum((score_frame(frame, rules) for frame in frames), Score())
        print(
            f"| {growth} | {core:g} | {found.result_objects} | {found.seg:.3f} | {found.f1[0]:.3f} "
            f"| {found.detection.missed} | {found.detection.splits} | {found.detection.spurious} "
            f"| {found.det:.3f} |"
        )


if __name__ == "__main__":
    main()
