"""The oldest check of a training set-up: a network must be able to learn one sample by heart.

Where it can't, image, target, loss and network do not fit together, and no amount of data will
help; where it can, the rest is up to data and time. A sample that never varies bears a learning
rate that a run doesn't, so AdamW and its rate here are not those of the settings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.errors import StacksegError, UsageError
from engine.store.claim import check_writable
from engine.store.files import whole_file
from train.data.dataset import load_data
from train.data.frames import LabelledFrame
from train.data.patches import Example, whole_frame
from train.networks import Network, NetworkArgs, build_network, n_weights
from train.optimise import Arithmetic, learning_rate, resolve_arithmetic, set_learning_rate
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


class Learnt(NamedTuple):
    """How far a network has come after so many steps."""

    step: int
    loss: float
    score: float  # as prediction would have it


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
    place = _densest(_richest(data.train, settings), settings)
    args = settings.network(data.n_channels, n_out=settings.n_outputs)
    network = build_network(args).to(arithmetic.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    y, x = (part.stop - part.start for part in place.window)
    note(
        f"one patch of {y}x{x} px of {place.frame.name}, {STEPS} steps; {n_weights(network):,} "
        f"weights, {arithmetic}"
    )
    sample = _cut(whole_frame(place.frame, settings), place)
    history = _learn(network, sample, settings, arithmetic, note)
    score, name = history[-1].score, task_of(settings).learnt_name
    if output is not None:
        logits = _predict(network, sample.image[None].to(arithmetic.device))[0].cpu()
        write_png(output / "overfit.png", draw_row(place, logits, settings))
        _write_summary(output / "overfit.json", place, args, history, name)
    if not score > ENOUGH:
        raise NotLearnt(
            f"after {STEPS} steps on one patch of {place.frame.name} its {name} is {score:.3f}, "
            f"and should be over {ENOUGH}; check that the truth fits the image, then --loss and "
            "the network"
        )
    return score


def _richest(frames: Sequence[LabelledFrame], settings: TrainSettings) -> LabelledFrame:
    """The first frame with all the classes that any one has; of objects, with any."""
    if not settings.classes:
        return next(f for f in frames if f.labels[f.inside].any())
    return max(frames, key=lambda f: len(np.unique(f.labels[f.inside])))


def _densest(frame: LabelledFrame, settings: TrainSettings) -> Place:
    """The patch of a frame with most objects in it.

    UsageError where it is a single value at the network's coarsest level.
    """
    # Two steps of a coarse grid: one would be a single value there, too few for statistics.
    side = max(SIDE, 2 * settings.stride)
    place = Place(frame, densest_window(frame, side, settings.stride))
    y, x = (part.stop - part.start for part in place.window)
    if settings.has_batch_norm and max(y, x) <= settings.stride:
        raise UsageError(
            f"--overfit-one: the patch of {frame.name} is {y}x{x} px, a single value at the "
            f"coarsest level of a network of stride {settings.stride} px, and batch normalisation "
            "needs two or more; give larger images, or fewer levels (--channels)"
        )
    return place


def _cut(whole: Example, place: Place) -> Example:
    """The part of a whole frame's example that a place shows."""
    y, x = place.window
    image, target, weight = (t[:, y, x].contiguous() for t in whole[:3])
    return Example(image, target, weight)


def _learn(
    network: Network,
    sample: Example,
    settings: TrainSettings,
    arithmetic: Arithmetic,
    note: Note,
) -> list[Learnt]:
    """Take all steps on one sample; how far the network is after every EVERY of them."""
    task = task_of(settings)
    course = settings.model_copy(
        update={"epochs": 1, "steps_per_epoch": STEPS, "lr": RATE, "schedule": "one-cycle"}
    )
    optimiser, scaler = torch.optim.AdamW(network.parameters(), betas=BETAS), arithmetic.scaler()
    image, target, weight = (t[None].to(arithmetic.device) for t in sample[:3])
    image = image.contiguous(memory_format=torch.channels_last)
    history: list[Learnt] = []
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
            found = Learnt(step, loss.item(), task.learnt(_predict(network, image), target, weight))
            note(f"step {step:3d}  loss {found.loss:.4f}  {task.learnt_name} {found.score:.4f}")
            history.append(found)
    return history


def _write_summary(
    path: Path, place: Place, args: NetworkArgs, history: Sequence[Learnt], name: str
) -> None:
    """What was learnt by which network, and how its loss and the score of that name went."""
    key = name.lower().replace(" ", "_")
    rows = [{"step": at, "loss": loss, key: score} for at, loss, score in history]
    summary = {"frame": place.frame.name, "network": args.as_json(), "history": rows}
    with whole_file(path) as partial:
        partial.write_text(json.dumps(summary, indent=2) + "\n")


@torch.inference_mode()
def _predict(network: Network, image: Tensor) -> Tensor:
    logits: Tensor = network.eval()(image).float()
    return logits
