"""Training once more, with the validation part as well, after that has chosen everything.

A run keeps frames back to choose its epoch, thresholds and minimum area. Once these are chosen, the
frames may teach: the run is repeated with its own settings on both parts, its last epoch is kept,
and what the earlier run chose holds. The test part is held back from both.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.errors import UsageError
from train.checkpoint import Checkpoint, changed_settings, load_checkpoint
from train.data.dataset import TrainingData
from train.settings import TrainSettings
from train.summary import Summary, read_summary
from train.teachers import teachers_hash

# Where and how fast a run computes, and what it draws, change nothing that it has chosen.
FREE = ("device", "precision", "workers", "strip_every")


def earlier_run(settings: TrainSettings) -> Checkpoint | None:
    """The run that is to be repeated, if any; UsageError unless it had these settings, and ended.

    `check_data` has to follow once there are data.
    """
    if settings.refit is None:
        return None
    run = Path(settings.refit)
    read_summary(run)
    earlier = load_checkpoint(run / "best.pt")
    if earlier.settings.refit is not None:
        raise UsageError(
            f"--refit {run}: has learnt its validation part already, by --refit "
            f"{earlier.settings.refit}"
        )
    ours = {name: getattr(earlier.settings, name) for name in ("refit", *FREE)}
    if changed := changed_settings(earlier.settings, settings.model_copy(update=ours)):
        raise UsageError(
            f"--refit {run}: was trained with other settings ({'; '.join(changed)}); give those of "
            f"{run / 'settings.json'}"
        )
    if earlier.hashes.get("teachers", "") != teachers_hash(settings.teachers):
        raise UsageError(f"--refit {run}: had another --teacher; give that")
    return earlier


def check_data(earlier: Checkpoint, settings: TrainSettings, data: TrainingData) -> None:
    """UsageError unless the run that is to be repeated had these data."""
    if earlier.hashes["data"] != data.sha256:
        raise UsageError(
            f"--refit {settings.refit}: was trained on other data than those in {settings.data}"
        )


def as_chosen(last: Checkpoint, earlier: Checkpoint) -> Checkpoint:
    """The last state of the run, with what was chosen, and scored, while frames were kept back."""
    val = {name: score for name, score in earlier.scores.items() if name.startswith("val_")}
    return replace(last, chosen=earlier.chosen, curve=earlier.curve, scores=val)


def with_honest_loss(summary: Summary, earlier: Path) -> Summary:
    """The summary with the loss that the validation part had while it taught nothing."""
    val = read_summary(earlier).loss["val"]
    return replace(summary, loss=dict(summary.loss) | {"val": val})
