"""The oldest check of a training set-up: a network must be able to learn one sample by heart.

Where it can't, image, target, loss and network do not fit together, and no amount of data will
help; where it can, the rest is up to data and time. A sample that never varies bears a learning
rate that a run doesn't, so AdamW and its rate here are not those of the settings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.errors import StacksegError, UsageError
from engine.store.claim import check_writable
from engine.store.files import whole_file
from train.data.dataset import load_data
from train.data.frames import LabelledFrame
from train.data.patches import Example, whole_frame
from train.networks import Network, build_network, n_weights
from train.optimise import learning_rate, resolve_arithmetic, set_learning_rate
from train.rows import Note
from train.settings import TrainSettings
from train.strips import Place, densest_window, draw_row, write_png
from train.tasks import task_of

STEPS, EVERY = 100, 10
ENOUGH = 0.98  # of the foreground's IoU, or of the classes' mean Dice
SIDE = 128  # px at most: what 100 steps are enough for
RATE, BETAS = 0.03, (0.9, 0.95)  # of AdamW: the peak of one cycle; so few steps need a short memory


class NotLearnt(StacksegError):
    """A network that could not learn one sample by heart."""

    exit_status = 1


def overfit_one(settings: TrainSettings, output: Path | None, note: Note = print) -> float:
    """Train on one patch, always the same; returns its score, as prediction would have it.

    The score is the IoU of the foreground, of classes their mean Dice. The patch is the densest of
    the training frame that has most classes, of objects the first that has any; nothing is varied.
    `note` gets the score as it goes. With `output`, a picture and a summary are written to that
    folder, as `overfit.png` and `overfit.json`. NotLearnt where the score stays at ENOUGH or below.
    """
    if output is not None:
        check_writable(output)
    arithmetic = resolve_arithmetic(settings)
    torch.manual_seed(settings.seed)
    data = load_data(settings)
    for remark in data.remarks:
        note(remark)
    task = task_of(settings)
    frame = _richest(data.train, settings)
    # Two steps of a coarse grid: one would be a single value there, too few for statistics.
    side = max(SIDE, 2 * settings.stride)
    place = Place(frame, densest_window(frame, side, settings.stride))
    _check_size(place, settings)
    sample = _cut(whole_frame(frame, settings), place)
    image, target, weight = (t[None].to(arithmetic.device) for t in sample[:3])
    image = image.contiguous(memory_format=torch.channels_last)

    course = settings.model_copy(
        update={"epochs": 1, "steps_per_epoch": STEPS, "lr": RATE, "schedule": "one-cycle"}
    )
    args = settings.network(data.n_channels, n_out=target.shape[1])
    network = build_network(args).to(arithmetic.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser, scaler = torch.optim.AdamW(network.parameters(), betas=BETAS), arithmetic.scaler()
    y, x = image.shape[2:]
    note(
        f"one patch of {y}x{x} px of {frame.name}, {STEPS} steps; {n_weights(network):,} weights, "
        f"{arithmetic}"
    )
    history, key = [], task.learnt_name.lower().replace(" ", "_")
    for step in range(1, STEPS + 1):
        network.train()
        set_learning_rate(optimiser, learning_rate(step - 1, course))
        with arithmetic.autocast():
            logits = network(image)
        loss = task.loss(logits, target, weight)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(optimiser)
        scaler.update()
        if step % EVERY == 0:
            score = task.learnt(_predict(network, image), target, weight)
            history.append({"step": step, "loss": loss.item(), key: score})
            note(f"step {step:3d}  loss {loss.item():.4f}  {task.learnt_name} {score:.4f}")
    if output is not None:
        logits = _predict(network, image)[0].cpu()
        write_png(output / "overfit.png", draw_row(place, logits, settings))
        summary = {"frame": frame.name, "network": args.as_json(), "history": history}
        with whole_file(output / "overfit.json") as partial:
            partial.write_text(json.dumps(summary, indent=2) + "\n")
    if not score > ENOUGH:
        raise NotLearnt(
            f"after {STEPS} steps on one patch of {frame.name} its {task.learnt_name} is "
            f"{score:.3f}, and should be over {ENOUGH}; check that the truth fits the image, then "
            "--loss and the network"
        )
    return score


def _richest(frames: Sequence[LabelledFrame], settings: TrainSettings) -> LabelledFrame:
    """The first frame with all the classes that any one has; of objects, with any."""
    if not settings.classes:
        return next(f for f in frames if f.labels[f.inside].any())
    return max(frames, key=lambda f: len(np.unique(f.labels[f.inside])))


def _check_size(place: Place, settings: TrainSettings) -> None:
    """UsageError where a patch is a single value at the network's coarsest level."""
    y, x = (part.stop - part.start for part in place.window)
    if settings.has_batch_norm and max(y, x) <= settings.stride:
        raise UsageError(
            f"--overfit-one: the patch of {place.frame.name} is {y}x{x} px, a single value at the "
            f"coarsest level of a network of stride {settings.stride} px, and batch normalisation "
            "needs two or more; give larger images, or fewer levels (--channels)"
        )


def _cut(whole: Example, place: Place) -> Example:
    """The part of a whole frame's example that a place shows."""
    y, x = place.window
    image, target, weight = (t[:, y, x].contiguous() for t in whole[:3])
    return Example(image, target, weight)


@torch.inference_mode()
def _predict(network: Network, image: Tensor) -> Tensor:
    logits: Tensor = network.eval()(image).float()
    return logits
