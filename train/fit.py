"""Fits a network: settings, data, model, optimiser, loop, checkpoints. Reads from top to bottom."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from engine.errors import OutputError, UsageError
from train.assess import choose_defaults, named_scores, score_test, validate
from train.checkpoint import (
    Checkpoint,
    code_hash,
    load_checkpoint,
    save_checkpoint,
    settings_hash,
)
from train.curves import Epoch, draw_curves, read_history, write_history
from train.data.dataset import TrainingData, load_data, load_part
from train.data.patches import Example, Patches, shares_by_area, whole_frame
from train.losses import segmentation_loss
from train.networks import Network, NetworkArgs, ResNetUNet, build_network, n_weights
from train.networks.pretrained import load_pretrained
from train.settings import TrainSettings
from train.start import start_from, start_hash

WARM_UP = 100  # steps over which the learning rate rises
SOME = 8  # batches whose statistics set up the batch normalisation of a model in --init
Report = Callable[[Epoch], None]
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
    device, bf16 = resolve_device(settings)
    torch.manual_seed(settings.seed)

    data = load_data(settings)
    _write_json(run / "settings.json", settings.as_json())
    _write_json(run / "split.json", data.split_as_json())
    for remark in data.remarks:
        note(remark)
    note(_describe(data))

    args = settings.network(data.n_channels, n_out=settings.n_outputs)
    network = build_network(args).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    note(f"{n_weights(network):,} weights, on {device} in {'bf16' if bf16 else 'fp32'}")
    pretrained = ""
    if settings.pretrained is not None and not resume:
        assert isinstance(network, ResNetUNet)
        pretrained = load_pretrained(network, settings.pretrained)
        note(f"the encoder starts from {settings.pretrained}")
    if settings.init is not None:
        note(f"starting from {start_from(network, args, settings, _some_patches(data, settings))}")
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    validation = [(frame, whole_frame(frame, settings)) for frame in data.val]

    history: list[Epoch] = []
    best = _initial(args, settings, data, pretrained)
    if resume:
        best, history = _restore(run, best, network, optimiser)
        note(f"resuming after epoch {len(history)}")
    for epoch in range(len(history), settings.epochs):
        if isinstance(network, ResNetUNet):
            network.freeze_encoder(epoch < settings.freeze_encoder)
        lr, loss, iou = _train_epoch(network, optimiser, data, epoch, device, bf16, settings)
        val_loss, scores = validate(network, validation, settings)
        step = (epoch + 1) * settings.steps_per_epoch
        history.append(
            Epoch(epoch + 1, step, lr, loss, iou, val_loss, scores.iou, scores.f1, scores.f1_50)
        )
        now = replace(
            best,
            weights={k: v.detach().cpu().clone() for k, v in network.state_dict().items()},
            epoch=epoch + 1,
            step=step,
            best_score=max(best.best_score, scores.rank),
            scores=named_scores("val", scores),
        )
        if scores.rank > best.best_score:
            best = now
            save_checkpoint(run / "best.pt", best)
        write_history(run / "history.csv", history)
        draw_curves(run / "curves.png", history)
        state = replace(now, optimiser=optimiser.state_dict(), rng=torch.get_rng_state())
        save_checkpoint(run / "last.pt", state)
        if report:
            report(history[-1])

    best = choose_defaults(best, data.val, run, device)
    test = load_part(data.split.test, settings).frames
    best = score_test(best, test, device)
    if test and "test_f1" not in best.scores:
        note("the test part has no object, and none was found: F1 is not defined")
    save_checkpoint(run / "best.pt", best)
    return best


def resolve_device(settings: TrainSettings) -> tuple[torch.device, bool]:
    """The device to train on, and whether in bf16."""
    has_cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not has_cuda:
        raise UsageError("--device cuda: PyTorch finds no CUDA device here; use --device cpu")
    device = torch.device("cuda" if has_cuda and settings.device != "cpu" else "cpu")
    if settings.precision == "auto":
        return device, _multiplies_bf16(device)
    return device, settings.precision == "bf16"


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Without instructions for it a processor emulates bf16, more slowly than it computes in fp32.
    instructions = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in instructions)


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Warm-up along a line, then down along a cosine to 0 at the last step."""
    total = settings.epochs * settings.steps_per_epoch
    warm_up = min(WARM_UP, total // 10)
    if step < warm_up:
        return settings.lr * (step + 1) / (warm_up + 1)
    done = (step - warm_up) / max(total - warm_up, 1)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


def _train_epoch(
    network: Network,
    optimiser: torch.optim.Optimizer,
    data: TrainingData,
    epoch: int,
    device: torch.device,
    bf16: bool,
    settings: TrainSettings,
) -> tuple[float, float, float]:
    """One pass of `steps_per_epoch` steps: last learning rate, mean loss, foreground IoU."""
    network.train()
    lr, losses, overlap, union = 0.0, 0.0, 0, 0
    for step, batch in enumerate(_batches(data, epoch, settings)):
        image, target, weight = (t.to(device) for t in batch)
        lr = learning_rate(epoch * settings.steps_per_epoch + step, settings)
        for group in optimiser.param_groups:
            group["lr"] = lr
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = network(image.contiguous(memory_format=torch.channels_last))
        loss = segmentation_loss(logits, target, weight, settings.dice)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        losses += loss.item()
        both, either = _overlap(logits, target, weight)
        overlap, union = overlap + both, union + either
    if not math.isfinite(losses):
        raise UsageError(f"the loss is not a number in epoch {epoch + 1}; lower --lr")
    return lr, losses / settings.steps_per_epoch, overlap / union if union else math.nan


def _batches(data: TrainingData, epoch: int, settings: TrainSettings) -> DataLoader[Example]:
    count = settings.steps_per_epoch * settings.batch
    shares = shares_by_area(data.train, data.is_synthetic, settings.synthetic_share)
    patches = Patches(data.train, shares, settings, epoch, count)
    return DataLoader(patches, batch_size=settings.batch, num_workers=settings.workers)


def _some_patches(data: TrainingData, settings: TrainSettings) -> Tensor:
    """Images (N, C, Y, X) of the first batches of a run."""
    batches = islice(_batches(data, 0, settings), SOME)
    return torch.cat([batch.image for batch in batches])


def _overlap(logits: Tensor, target: Tensor, weight: Tensor) -> tuple[int, int]:
    """Pixels of the foreground, the first output, that are found and true, and that are either."""
    logits, target, counts = logits[:, 0], target[:, 0], weight[:, 0] > 0
    found, truth = (logits > 0) & counts, (target > 0) & counts
    return int((found & truth).sum()), int((found | truth).sum())


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
        hashes["pretrained"] = pretrained
    words = data.described(settings)
    return Checkpoint(args, {}, settings, 0, 0, -math.inf, hashes=hashes, trained_on=words)


def _restore(
    run: Path, fresh: Checkpoint, network: Network, optimiser: torch.optim.Optimizer
) -> tuple[Checkpoint, list[Epoch]]:
    """Restore network, optimiser and generator from `last.pt`."""
    last = load_checkpoint(run / "last.pt")
    for what in ("settings", "data"):
        if last.hashes[what] != fresh.hashes[what]:
            raise UsageError(f"{run}: was started with other {what}; give another --output")
    network.load_state_dict(dict(last.weights))
    optimiser.load_state_dict(dict(last.optimiser))
    if last.rng is not None:
        torch.set_rng_state(last.rng)
    return load_checkpoint(run / "best.pt"), read_history(run / "history.csv")[: last.epoch]


def _describe(data: TrainingData) -> str:
    parts = f"{len(data.train)} training, {len(data.val)} validation frames"
    return f"{parts}, {len(data.split.test)} held back; split {data.split.rule}"


def _write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")
