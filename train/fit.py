"""Fits a network: settings, data, model, optimiser, loop, checkpoints. Reads from top to bottom."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import OutputError, UsageError, WriteError
from engine.store.claim import check_writable
from engine.store.files import whole_file
from train.assess import choose_defaults, score_test, validate
from train.board import Board
from train.checkpoint import Checkpoint, code_hash, save_checkpoint, settings_hash
from train.course import Course
from train.curves import Timing
from train.data.dataset import TrainingData, load_data, load_part
from train.data.frames import LabelledFrame
from train.data.patches import Example, whole_frame
from train.epoch import train_epoch
from train.freeze import freeze
from train.loader import batches
from train.networks import (
    Network,
    NetworkArgs,
    ResNetUNet,
    TransferUNet,
    build_network,
    n_weights,
)
from train.networks.pretrained import load_pretrained
from train.optimise import Arithmetic, Fitting, resolve_arithmetic
from train.rows import EpochRow, Note, as_written
from train.settings import TrainSettings
from train.sources import check_sources
from train.start import source_hashes, start_from
from train.strips import choose_places, draw_strip
from train.summary import summarise, write_summary
from train.tasks import task_of
from train.teachers import Teachers
from train.transfer import doubt_of_scale, transfer

SOME = 8  # batches whose statistics an encoder is set up by (--init) or checked (--transfer)
Report = Callable[[EpochRow], None]


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
    check_sources(settings, run, resume)
    torch.manual_seed(settings.seed)
    data = load_data(settings)
    settings = task_of(settings).settled(data.train)
    _describe(data, note)

    args = settings.network(data.n_channels, n_out=settings.n_outputs)
    network = build_network(args).to(arithmetic.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    note(f"{n_weights(network):,} weights, {arithmetic}")
    if late := [
        f"{epoch}:{level}" for epoch, level in settings.unfreeze if epoch > settings.epochs
    ]:
        note(
            f"--unfreeze {','.join(late)}: the run ends after epoch {settings.epochs}, so "
            "these levels stay frozen"
        )
    pretrained = "" if resume else _load_encoder(network, settings, data, note)
    if settings.init is not None:
        note(f"starting from {start_from(network, args, settings, _some_patches(data, settings))}")
    fitting = Fitting.of(network, settings, arithmetic)
    teachers = Teachers.of(settings, data, arithmetic)
    course = Course(run, fitting, _initial(args, settings, data, pretrained))
    if resume:
        course.restore(note)
    _write_json(run / "settings.json", settings.as_json())
    _write_json(run / "split.json", data.split_as_json())

    try:
        _run_epochs(course, data, settings, arithmetic, teachers, note, report)
        return _finish(course, data, settings, arithmetic, note)
    except WriteError as error:
        if resume or not (run / "last.pt").exists():
            raise
        raise WriteError(f"{error} with --resume") from error


def _run_epochs(
    course: Course,
    data: TrainingData,
    settings: TrainSettings,
    arithmetic: Arithmetic,
    teachers: Teachers,
    note: Note,
    report: Report | None,
) -> None:
    """Teach and validate, from the first epoch that is not complete to the last."""
    task, fitting = task_of(settings), course.fitting
    validation = [(frame, whole_frame(frame, settings)) for frame in data.val]
    places = choose_places(data.val)
    stream = batches(data, settings, first_epoch=course.epochs)
    watch = task.watch()
    board = Board(course.run, course.epochs, settings.steps_per_epoch)
    began = _score_start(course, validation, settings, note)
    for epoch in range(course.epochs, settings.epochs):
        started = time.monotonic()
        freeze(fitting.network, epoch + 1, settings)
        taught = train_epoch(fitting, stream, epoch, data.train, arithmetic, teachers, settings)
        val_loss, scores = validate(fitting.judged, validation, settings)
        if not math.isfinite(val_loss):
            raise UsageError(
                f"the loss of the validation part is {val_loss} after epoch {epoch + 1}; train "
                "with a lower --lr, or with --precision fp32"
            )
        timing = Timing(epoch + 1, time.monotonic() - started, taught.waited)
        step = (epoch + 1) * settings.steps_per_epoch
        row = as_written(task.epoch_row(epoch + 1, step, taught, val_loss, scores))
        task.draw_curves(course.run / "curves.png", [*course.history, row])
        is_last = epoch + 1 == settings.epochs
        if settings.strip_every and (is_last or (epoch + 1) % settings.strip_every == 0):
            strip = course.run / "strips" / f"epoch-{epoch + 1:03d}.png"
            draw_strip(strip, fitting.judged, places, settings)
        board.add(row)
        course.add(row, timing, scores)
        if report:
            report(row)
        if words := watch.see(epoch + 1, scores):
            note(words)
    if course.best.best_score < began:
        note(
            "no epoch is as good on the validation part as the start was: train for longer, or "
            "with a lower --lr"
        )
    board.close()


def _score_start(
    course: Course,
    validation: Sequence[tuple[LabelledFrame, Example]],
    settings: TrainSettings,
    note: Note,
) -> float:
    """What a run of --init starts from, said before it is changed; its rank, or less than any."""
    if settings.init is None or course.epochs:
        return -math.inf
    _, scores = validate(course.fitting.judged, validation, settings)
    values = [f"{name} {value:.3f}" for name, value in scores.defined().items()]
    note(f"before training, on the validation part: {', '.join(values)}")
    return scores.rank


def _finish(
    course: Course,
    data: TrainingData,
    settings: TrainSettings,
    arithmetic: Arithmetic,
    note: Note,
) -> Checkpoint:
    """Choose the best state's defaults, score the test part, and sum the run up."""
    run, task = course.run, task_of(settings)
    best = choose_defaults(course.best, data, run, arithmetic.device)
    test = load_part(data.split.test, settings).frames
    best = score_test(best, test, run, arithmetic.device)
    for words in task.remarks(best.scores, tested=bool(test)):
        note(words)
    save_checkpoint(run / "best.pt", best)
    shape = data.val[0].image.shape
    write_summary(run, summarise(best, course.history, course.timings, shape, arithmetic))
    return best


def _load_encoder(network: Network, settings: TrainSettings, data: TrainingData, note: Note) -> str:
    """Give the encoder the weights that it is to start from; returns their SHA-256, or ""."""
    if settings.pretrained is not None:
        assert isinstance(network, ResNetUNet)
        sha256 = load_pretrained(network, settings.pretrained)
        note(f"the encoder starts from {settings.pretrained}")
        return sha256
    if settings.transfer is not None:
        assert isinstance(network, TransferUNet)
        sha256 = transfer(network, settings.transfer, note, settings.transfer_white)
        if doubt := doubt_of_scale(network, _some_patches(data, settings)):
            note(doubt)
        return sha256
    return ""


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
    check_writable(run)


def _initial(
    args: NetworkArgs,
    settings: TrainSettings,
    data: TrainingData,
    pretrained: str,
) -> Checkpoint:
    hashes = {"data": data.sha256, "code": code_hash(), "settings": settings_hash(settings)}
    hashes |= source_hashes(settings)
    if pretrained:
        hashes["transfer" if settings.transfer is not None else "pretrained"] = pretrained
    words = data.described(settings)
    return Checkpoint(args, {}, settings, 0, 0, -math.inf, hashes=hashes, trained_on=words)


def _describe(data: TrainingData, note: Note) -> None:
    """Say what the run learns from."""
    for remark in data.remarks:
        note(remark)
    parts = f"{len(data.train)} training, {len(data.val)} validation frames"
    note(f"{parts}, {len(data.split.test)} held back; split {data.split.rule}")


def _write_json(path: Path, values: object) -> None:
    with whole_file(path) as partial:
        partial.write_text(json.dumps(values, indent=2) + "\n")
