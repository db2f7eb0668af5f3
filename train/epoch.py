"""One epoch: batches, losses, steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from engine.errors import UsageError
from engine.stacks.guard import some
from train.data.frames import LabelledFrame
from train.data.patches import Example
from train.loader import Stopwatch
from train.optimise import Arithmetic, Fitting, learning_rate, set_learning_rate
from train.settings import TrainSettings
from train.tasks import task_of
from train.tasks.base import Taught
from train.teachers import Teachers


def train_epoch(
    fitting: Fitting,
    stream: Iterator[Example],
    epoch: int,
    frames: Sequence[LabelledFrame],
    arithmetic: Arithmetic,
    teachers: Teachers,
    settings: TrainSettings,
) -> Taught:
    """One pass of `steps_per_epoch` steps. UsageError where the loss is no longer a number."""
    task = task_of(settings)
    network, optimiser, scaler = fitting.network, fitting.optimiser, fitting.scaler
    network.train()
    waiting, losses, agree, of, earlier = Stopwatch(), 0.0, 0, 0, None
    for step in range(epoch * settings.steps_per_epoch, (epoch + 1) * settings.steps_per_epoch):
        lr = learning_rate(step, settings)
        set_learning_rate(optimiser, lr)
        optimiser.zero_grad(set_to_none=True)
        for _ in range(settings.accumulate):
            with waiting:
                batch = next(stream)
            image, target, weight = (t.to(arithmetic.device) for t in batch[:3])
            with arithmetic.autocast():
                logits = network(image.contiguous(memory_format=torch.channels_last))
            loss = task.loss(logits, teachers.target(image, target, step), weight)
            if not math.isfinite(loss.item()):
                raise _diverged(loss.item(), step, lr, fitting, batch, earlier, frames)
            torch.autograd.backward(scaler.scale(loss / settings.accumulate))
            losses += loss.item()
            right, counted = task.agreement(logits, target, weight)
            agree, of, earlier = agree + right, of + counted, batch
        scaler.step(optimiser)
        scaler.update()
        if fitting.average is not None:
            fitting.average.update(network, step)
    n_batches = settings.steps_per_epoch * settings.accumulate
    agreement = agree / of if of else math.nan
    return Taught(lr, losses / n_batches, agreement, waiting.seconds)


def _diverged(
    loss: float,
    step: int,
    lr: float,
    fitting: Fitting,
    batch: Example,
    earlier: Example | None,
    frames: Sequence[LabelledFrame],
) -> UsageError:
    """What to say of a loss that is not a number, and of which files.

    The largest pixel tells a reader whether it is the files (it should be about 1) or the rate.
    """
    sound = all(torch.isfinite(p).all() for p in fitting.network.parameters())
    if sound or earlier is None:
        cause, culprit = "in a batch", batch
    else:  # it is the step before that broke the weights
        cause, culprit = "after weights overflowed in the step before, in a batch", earlier
    names = list(dict.fromkeys(frames[at].name for at in torch.as_tensor(culprit.frame).tolist()))
    largest = culprit.image.abs().max().item()
    return UsageError(
        f"the loss is {loss} at step {step + 1}, {cause} of {some(names, limit=10)}, whose "
        f"normalised pixels reach {largest:.3g}; take files with pixels far beyond 1 out of the "
        f"data, or train with a lower --lr than {lr:.3g} or with --precision fp32"
    )
