"""What a step of training costs: `python -m benchmarks.training`.

    python -m benchmarks.training [--repeats 15] [--save]

Forward, backward and the optimiser's step on 4 patches of 256 px, for the 16-32-64-128 U-Net, in
fp32 and bf16, contiguous and channels last. Medians of repeats that take turns.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `stackseg train` has it

import torch

from benchmarks.record import RESULTS, medians
from engine.job.report import machine
from engine.plan.resources import cores
from train.losses import segmentation_loss
from train.networks import UNet
from train.settings import TrainSettings

LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
SETTINGS = TrainSettings(data="", layout="pairs")
PRECISIONS = {"fp32": False, "bf16": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/*.md")
    options = parser.parse_args()
    torch.set_num_threads(cores())
    taken = medians(
        {f"{p} {layout}": step(bf16, LAYOUTS[layout])
         for p, bf16 in PRECISIONS.items() for layout in LAYOUTS},
        options.repeats,
    )  # fmt: skip
    rows = [
        f"| {p} | "
        + " | ".join(f"{1000 * taken[f'{p} {layout}']:.0f} ms" for layout in LAYOUTS)
        + " |"
        for p in PRECISIONS
    ]
    text = "\n".join([
        "# A step of training", "",
        f"{machine().processor} ({torch.backends.cpu.get_cpu_capability()}), {cores()} cores; "
        f"torch {torch.__version__}; medians of {options.repeats}; {time.strftime('%Y-%m-%d')}; "
        "`python -m benchmarks.training`", "",
        f"| | {' | '.join(LAYOUTS)} |", "| --- | --- | --- |", *rows,
    ]) + "\n"  # fmt: skip
    print(text)
    if options.save:
        (RESULTS / f"training-{time.strftime('%Y-%m-%d')}.md").write_text(text)


def step(bf16: bool, layout: torch.memory_format) -> Callable[[], None]:
    """One step of a network of its own, on the same patches."""
    torch.manual_seed(0)
    network = UNet(1, 1, (16, 32, 64, 128)).to(memory_format=layout)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters())
    images = torch.randn(4, 1, 256, 256).contiguous(memory_format=layout)
    target = (torch.rand(4, 1, 256, 256) > 0.5).float()

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = network(images)
        loss = segmentation_loss(logits, target, torch.ones_like(target), SETTINGS)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return run


if __name__ == "__main__":
    main()
