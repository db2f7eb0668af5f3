"""Checkpoints: everything needed to export a network, to resume training, and to trace it back.

A checkpoint is read with torch's `weights_only` loader, so that opening one runs no code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import engine.model.statistics
import train
from engine import synthetic
from engine.errors import ModelError, first_line
from engine.store.files import whole_file
from train.networks import Network, NetworkArgs, build_network
from train.settings import TrainSettings

FORMAT = 1
LONGEST = 60  # characters of a message on a setting that has changed
SHAPES_NOTHING = ("cli.py", "cli_compare.py", "compare.py")  # of the code


@dataclass(frozen=True)
class Checkpoint:
    """One saved state of a training run."""

    network: NetworkArgs
    weights: Mapping[str, torch.Tensor]
    settings: TrainSettings
    epoch: int  # epochs done
    step: int  # optimiser steps done
    best_score: float  # highest validation score so far
    scores: Mapping[str, float] = field(default_factory=dict)  # of these weights
    hashes: Mapping[str, str] = field(default_factory=dict)  # of data, code and settings
    chosen: Mapping[str, float] = field(default_factory=dict)  # threshold, min_area
    curve: Sequence[Mapping[str, float]] = ()  # scores of every threshold and min_area tried
    trained_on: str = ""  # in words
    # What resuming needs, in last.pt alone; see `Fitting.state`.
    fitted: Mapping[str, torch.Tensor] = field(default_factory=dict)  # if `weights` are averages
    optimiser: Mapping[str, Any] = field(default_factory=dict)
    scaler: Mapping[str, Any] = field(default_factory=dict)  # of gradients in fp16
    rng: torch.Tensor | None = None  # torch's generator; patches draw from seeds of their own
    cuda_rng: torch.Tensor | None = None
    threads: int = 0  # that PyTorch computed with

    def build(self) -> Network:
        """The network with these weights, ready to predict."""
        network = build_network(self.network)
        network.load_state_dict(dict(self.weights))
        return network.eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Put a checkpoint in place of an earlier one, which a kill leaves as it was."""
    values = {name: getattr(checkpoint, name) for name in checkpoint.__dataclass_fields__}
    for name in ("weights", "scores", "hashes", "chosen", "fitted", "optimiser", "scaler"):
        values[name] = dict(values[name])
    values["curve"] = [dict(point) for point in checkpoint.curve]
    values["network"] = checkpoint.network.as_json()
    values["settings"] = checkpoint.settings.as_json()
    with whole_file(path) as partial, partial.open("wb") as file:
        try:
            torch.save({"format": FORMAT} | values, file)
        except RuntimeError as error:  # what torch makes of a full disk when it ends its archive
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; ModelError where the file is not one."""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise _missing(path) from None
    except NotADirectoryError:
        raise ModelError(
            f"{path.parent}: is no folder; give the folder of a training run"
        ) from None
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise ModelError(f"{path}: cannot be read ({reason})") from error
    except Exception as error:  # torch raises whatever its unpickler met
        raise ModelError(
            f"{path}: is damaged, or not a checkpoint of stackseg train; copy it again, or train "
            "again"
        ) from error
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise ModelError(f"{path}: not a checkpoint of stackseg train of format {FORMAT}")
    try:
        values["network"] = NetworkArgs.from_json(values["network"])
        values["settings"] = TrainSettings.model_validate(values["settings"])
        return Checkpoint(**values)
    except (KeyError, TypeError, ValueError):
        raise ModelError(f"{path}: written by another version of stackseg; train again") from None


def _missing(path: Path) -> ModelError:
    what = f"{path}: there is no such checkpoint"
    if not path.parent.exists():
        what = f"{path.parent}: there is no such folder"
    return ModelError(f"{what}; give the folder of a training run")


def settings_hash(settings: TrainSettings) -> str:
    """SHA-256 of the settings, without the place where the data happen to lie."""
    return hashlib.sha256(json.dumps(_placeless(settings), sort_keys=True).encode()).hexdigest()


def changed_settings(earlier: TrainSettings, settings: TrainSettings) -> list[str]:
    """The settings in which two runs differ, in words: "epochs 2, now 3"; long values by name.

    Class weights that are still "auto", since no data have been read, may be any.
    """
    before, now = _placeless(earlier), _placeless(settings)
    if settings.class_weights == "auto":
        now["class_weights"] = before["class_weights"]
    values = {
        name: f" {before[name]}, now {now[name]}" for name in now if before[name] != now[name]
    }
    return [name + (words if len(words) <= LONGEST else "") for name, words in values.items()]


def _placeless(settings: TrainSettings) -> dict[str, Any]:
    values = settings.as_json() | {"data": Path(settings.data).name}
    for start in ("init", "pretrained", "transfer"):
        if values[start] is not None:
            values[start] = Path(values[start]).name
    # A hash of their weights stands beside that of the settings, whatever their folders are called.
    return values | {"teachers": len(values["teachers"])}


def code_hash() -> str:
    """SHA-256 of the code that shapes weights: training, statistics and synthetic frames."""
    top = Path(train.__file__).parent.parent
    files = [path for path in (top / "train").rglob("*.py") if path.name not in SHAPES_NOTHING]
    files += [Path(engine.model.statistics.__file__), *Path(synthetic.__file__).parent.glob("*.py")]
    lines = [
        f"{path.relative_to(top).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in files
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
