"""How weights are moved: optimisers and schedules by name, arithmetic, and averaged weights."""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.errors import UsageError
from train.checkpoint import Checkpoint
from train.networks import Network
from train.settings import TrainSettings

MOMENTUM = 0.99  # of SGD, as in the U-Net paper
WARM_UP = 100  # steps over which the learning rate rises
RISE = 0.3  # share of a run in which the one-cycle schedule goes up
START, END = 1 / 25, 1 / 25e4  # of the peak, where one-cycle starts and ends
DROPS = 3  # parts of a run that the step schedule makes; each has a tenth of the rate before
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Arithmetic:
    """Where and in which numbers a network is computed. Losses and weights are always fp32."""

    device: torch.device
    precision: str  # "fp32", "bf16" or "fp16"

    def autocast(self) -> AbstractContextManager[Any]:
        """Context in which convolutions take the precision."""
        enabled = self.precision != "fp32"
        return torch.autocast(self.device.type, DTYPES[self.precision], enabled=enabled)

    def scaler(self) -> torch.amp.GradScaler:
        """Keeps small gradients from vanishing in fp16; hands all through in other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def __str__(self) -> str:
        return f"on {self.device} in {self.precision}"


def resolve_arithmetic(settings: TrainSettings) -> Arithmetic:
    """The device and the precision that `settings` mean on this machine; UsageError if neither."""
    has_cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not has_cuda:
        raise UsageError("--device cuda: PyTorch finds no CUDA device here; use --device cpu")
    device = torch.device("cuda" if has_cuda and settings.device != "cpu" else "cpu")
    if settings.precision == "fp16" and device.type == "cpu":
        raise UsageError(
            "--precision fp16: is for CUDA devices, and this run is on the CPU; use bf16 or fp32"
        )
    if settings.precision != "auto":
        return Arithmetic(device, settings.precision)
    return Arithmetic(device, "bf16" if _multiplies_bf16(device) else "fp32")


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Without instructions for it a processor emulates bf16, more slowly than it computes in fp32.
    instructions = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in instructions)


def build_optimiser(network: Network, settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimiser that `settings.optimiser` names, for all of the network's weights."""
    weights, lr, decay = _groups(network, settings), settings.lr, settings.weight_decay
    if settings.optimiser == "sgd":
        return torch.optim.SGD(weights, lr=lr, weight_decay=decay, momentum=MOMENTUM)
    if settings.optimiser == "adam":
        return torch.optim.Adam(weights, lr=lr, weight_decay=decay)
    return torch.optim.AdamW(weights, lr=lr, weight_decay=decay)


def _groups(network: Network, settings: TrainSettings) -> Any:
    """All weights alike, or those of the encoder apart, with their share of the rate."""
    if settings.encoder_lr is None:
        return network.parameters()
    parts: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, weight in network.named_parameters():
        parts[name.startswith("encoder")].append(weight)
    share = settings.encoder_lr / settings.lr
    return [{"params": parts[True], "share": share}, {"params": parts[False], "share": 1.0}]


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step; of a group of weights, its share of it."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("share", 1.0)


def learning_rate(step: int, settings: TrainSettings) -> float:
    """The learning rate of a step, counted from 0 over the whole run.

    It follows from the step alone, so that a resumed run needs no other state. All schedules but
    one-cycle begin with a warm-up along a line, of 100 steps or of a tenth of a shorter run:

    - cosine: down along a cosine, to nearly 0 at the last step;
    - one-cycle: up along a cosine for RISE of the run, then down along another (Smith and Topin
      2018, https://arxiv.org/abs/1708.07120);
    - step: a tenth after each third of the run;
    - constant.
    """
    total = settings.epochs * settings.steps_per_epoch
    if settings.schedule == "one-cycle":
        return settings.lr * _one_cycle(step, total)
    warm_up = min(WARM_UP, total // 10)
    if step < warm_up:
        return settings.lr * (step + 1) / (warm_up + 1)
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "step":
        return settings.lr * 0.1 ** (DROPS * step // total)
    return settings.lr * _cosine(1, 0, (step - warm_up) / max(total - warm_up, 1))


def _one_cycle(step: int, total: int) -> float:
    """Share of the peak, as torch's OneCycleLR has it (without its cycle of the momentum)."""
    top = RISE * total - 1
    if step < top:
        return _cosine(START, 1, step / top)
    return _cosine(1, END, (step - top) / (total - 1 - top))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


class AveragedNetwork:
    """A network whose weights and batch statistics are the exponential average of another's.

    At first the average forgets faster than `decay` says (decay is at most (1 + n) / (10 + n)
    after n steps), so that fresh weights do not linger in short runs.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: Network, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        theirs = network.state_dict()
        for name, mine in self.network.state_dict().items():
            if mine.is_floating_point():
                mine.lerp_(theirs[name], 1 - decay)
            else:
                mine.copy_(theirs[name])  # how many batches the statistics are of


@dataclass(frozen=True)
class Fitting:
    """All that steps change. Saved after each epoch, and restored to the same bits."""

    network: Network
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedNetwork | None

    @classmethod
    def of(cls, network: Network, settings: TrainSettings, arithmetic: Arithmetic) -> Fitting:
        """A network and what moves it, before the first step."""
        average = AveragedNetwork(network, settings.ema) if settings.ema else None
        return cls(network, build_optimiser(network, settings), arithmetic.scaler(), average)

    @property
    def judged(self) -> Network:
        """The network that is validated, kept and exported: the averaged one, if there is one."""
        return self.network if self.average is None else self.average.network

    def weights(self) -> dict[str, Tensor]:
        """A copy of the judged network's weights, on the CPU."""
        return _copied(self.judged)

    def state(self) -> dict[str, Any]:
        """What resuming needs beyond `weights`, by the names of a checkpoint's fields."""
        device = next(self.network.parameters()).device
        return {
            "fitted": _copied(self.network) if self.average is not None else {},
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "threads": torch.get_num_threads(),
        }

    def restore(self, last: Checkpoint) -> None:
        """Return to what a checkpoint has of `weights` and `state`."""
        self.judged.load_state_dict(dict(last.weights))
        if self.average is not None:
            self.network.load_state_dict(dict(last.fitted))
        self.optimiser.load_state_dict(dict(last.optimiser))
        if last.scaler:
            self.scaler.load_state_dict(dict(last.scaler))
        if last.rng is not None:
            torch.set_rng_state(last.rng)
        if last.cuda_rng is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(last.cuda_rng)


def _copied(network: Network) -> dict[str, Tensor]:
    return {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}
