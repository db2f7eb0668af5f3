"""Fits a network: settings, data, model, optimiser, loop, checkpoints. Reads from top to bottom."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import OutputError, UsageError
from engine.stacks.guard import some
from train.assess import choose_defaults, named_scores, score_test, validate
from train.board import Board
from train.checkpoint import (
    Checkpoint,
    code_hash,
    load_checkpoint,
    save_checkpoint,
    settings_hash,
)
from train.curves import Timing, read_rows, write_rows
from train.data.dataset import TrainingData, load_data, load_part
from train.data.frames import LabelledFrame
from train.data.patches import Example, whole_frame
from train.freeze import freeze
from train.loader import Stopwatch, batches
from train.networks import NetworkArgs, ResNetUNet, TransferUNet, build_network, n_weights
from train.networks.pretrained import load_pretrained
from train.optimise import (
    Arithmetic,
    Fitting,
    learning_rate,
    resolve_arithmetic,
    set_learning_rate,
)
from train.rows import EpochRow
from train.settings import TrainSettings
from train.start import start_from, start_hash
from train.strips import choose_places, draw_strip
from train.summary import summarise, write_summary
from train.tasks import task_of
from train.tasks.base import Taught
from train.transfer import doubt_of_scale, transfer

SOME = 8  # batches whose statistics an encoder is set up by (--init) or checked (--transfer)
Report = Callable[[EpochRow], None]
Note = Callable[[str], None]


def fit(
    settings: TrainSettings,
    run: Path,
    note: Note = print,
    report: Report | None = None,
    resume: bool = False,
) -> Checkpoint:
    """Train as `settings` say and leave everything in the folder `run`; returns the best state.

    `note` gets messages in words, `report` the figures of each epoch. With `resume`, an interrupted
    run is resumed after its last complete epoch and ends in the same state.
    """
    _prepare(run, resume)
    arithmetic = resolve_arithmetic(settings)
    torch.manual_seed(settings.seed)

    data = load_data(settings)
    settings = task_of(settings).settled(data.train)
    task = task_of(settings)
    _write_json(run / "settings.json", settings.as_json())
    _write_json(run / "split.json", data.split_as_json())
    for remark in data.remarks:
        note(remark)
    note(_describe(data))

    args = settings.network(data.n_channels, n_out=settings.n_outputs)
    network = build_network(args).to(arithmetic.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    note(f"{n_weights(network):,} weights, {arithmetic}")
    pretrained = ""
    if settings.pretrained is not None and not resume:
        assert isinstance(network, ResNetUNet)
        pretrained = load_pretrained(network, settings.pretrained)
        note(f"the encoder starts from {settings.pretrained}")
    if settings.transfer is not None and not resume:
        assert isinstance(network, TransferUNet)
        pretrained = transfer(network, settings.transfer, note, settings.transfer_white)
        if doubt := doubt_of_scale(network, _some_patches(data, settings)):
            note(doubt)
    if settings.init is not None:
        note(f"starting from {start_from(network, args, settings, _some_patches(data, settings))}")
    fitting = Fitting.of(network, settings, arithmetic)
    validation = [(frame, whole_frame(frame, settings)) for frame in data.val]
    places = choose_places(data.val)

    history: list[EpochRow] = []
    timings: list[Timing] = []
    best = _initial(args, settings, data, pretrained)
    if resume:
        best, history, timings = _restore(run, best, fitting, note)
        note(f"resuming after epoch {len(history)}")
    stream = batches(data, settings, first_epoch=len(history))
    watch = task.watch()
    board = Board(run, len(history), settings.steps_per_epoch)
    for epoch in range(len(history), settings.epochs):
        started = time.monotonic()
        freeze(network, epoch + 1, settings)
        taught = train_epoch(fitting, stream, epoch, data.train, arithmetic, settings)
        val_loss, scores = validate(fitting.judged, validation, settings)
        if not math.isfinite(val_loss):
            raise UsageError(
                f"the loss of the validation part is {val_loss} after epoch {epoch + 1}; train "
                "with a lower --lr, or with --precision fp32"
            )
        timings.append(Timing(epoch + 1, time.monotonic() - started, taught.waited))
        step = (epoch + 1) * settings.steps_per_epoch
        history.append(task.epoch_row(epoch + 1, step, taught, val_loss, scores))
        now = replace(
            best,
            weights=fitting.weights(),
            epoch=epoch + 1,
            step=step,
            best_score=max(best.best_score, scores.rank),
            scores=named_scores("val", scores),
        )
        if scores.rank > best.best_score:
            best = now
            save_checkpoint(run / "best.pt", best)
        write_rows(run / "history.csv", history)
        write_rows(run / "timings.csv", timings)
        task.draw_curves(run / "curves.png", history)
        if settings.strip_every and (epoch + 1) % settings.strip_every == 0:
            draw_strip(
                run / "strips" / f"epoch-{epoch + 1:03d}.png", fitting.judged, places, settings
            )
        board.add(history[-1])
        save_checkpoint(run / "last.pt", replace(now, **fitting.state()))  # the epoch is complete
        if report:
            report(history[-1])
        if words := watch.see(epoch + 1, scores):
            note(words)
    board.close()

    best = choose_defaults(best, data.val, run, arithmetic.device)
    test = load_part(data.split.test, settings).frames
    best = score_test(best, test, run, arithmetic.device)
    if test and (words := task.remark_on_test(best.scores)):
        note(words)
    save_checkpoint(run / "best.pt", best)
    shape = data.val[0].image.shape
    write_summary(run, summarise(best, history, timings, shape, arithmetic))
    return best


def train_epoch(
    fitting: Fitting,
    stream: Iterator[Example],
    epoch: int,
    frames: Sequence[LabelledFrame],
    arithmetic: Arithmetic,
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
            loss = task.loss(logits, target, weight)
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


def _some_patches(data: TrainingData, settings: TrainSettings) -> Tensor:
    """Images (N, C, Y, X) of the first batches of a run."""
    first = islice(batches(data, settings), SOME)
    return torch.cat([batch.image for batch in first])


def _prepare(run: Path, resume: bool) -> None:
    if resume and not (run / "last.pt").exists():
        raise UsageError(f"{run}: holds no training run to resume; omit --resume")
    if not resume and (run / "last.pt").exists():
        raise OutputError(
            f"{run}: already holds a training run; give another --output, or --resume it"
        )
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{run}: cannot be created ({error.strerror})") from None


def _initial(
    args: NetworkArgs, settings: TrainSettings, data: TrainingData, pretrained: str
) -> Checkpoint:
    hashes = {"data": data.sha256, "code": code_hash(), "settings": settings_hash(settings)}
    if settings.init is not None:
        hashes["init"] = start_hash(settings.init)
    if pretrained:
        hashes["transfer" if settings.transfer is not None else "pretrained"] = pretrained
    words = data.described(settings)
    return Checkpoint(args, {}, settings, 0, 0, -math.inf, hashes=hashes, trained_on=words)


def _restore(
    run: Path, fresh: Checkpoint, fitting: Fitting, note: Note
) -> tuple[Checkpoint, list[EpochRow], list[Timing]]:
    """Restore all that steps change from `last.pt`; returns the best state and the rows so far."""
    last = load_checkpoint(run / "last.pt")
    for what in ("settings", "data"):
        if last.hashes[what] != fresh.hashes[what]:
            raise UsageError(f"{run}: was started with other {what}; give another --output")
    fitting.restore(last)
    if last.threads != torch.get_num_threads():
        note(
            f"this run was computed by {last.threads} threads, and goes on with "
            f"{torch.get_num_threads()}: figures may differ in their last digits"
        )
    rows = read_rows(run / "history.csv", task_of(last.settings).row)
    timings = read_rows(run / "timings.csv", Timing)[: last.epoch]
    return load_checkpoint(run / "best.pt"), rows[: last.epoch], timings


def _describe(data: TrainingData) -> str:
    parts = f"{len(data.train)} training, {len(data.val)} validation frames"
    return f"{parts}, {len(data.split.test)} held back; split {data.split.rule}"


def _write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")
