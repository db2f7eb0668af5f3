"""The course of a run: what every epoch leaves in its folder, and how a run goes on from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from engine.errors import UsageError
from train.assess import named_scores
from train.checkpoint import Checkpoint, changed_settings, load_checkpoint, save_checkpoint
from train.curves import Timing, read_rows, write_rows
from train.optimise import Fitting
from train.rows import EpochRow, Note
from train.settings import TrainSettings
from train.start import teachers_hash
from train.tasks import task_of
from train.tasks.base import PartScores


@dataclass
class Course:
    """Epochs that are complete, and the best state so far.

    An epoch is complete once `last.pt` holds it; what was written of a later one is written again.
    """

    run: Path
    fitting: Fitting
    best: Checkpoint
    history: list[EpochRow] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        """How many are complete."""
        return len(self.history)

    def add(self, row: EpochRow, timing: Timing, scores: PartScores) -> None:
        """Write down an epoch that has been taught and validated."""
        self.history.append(row)
        self.timings.append(timing)
        now = replace(
            self.best,
            weights=self.fitting.weights(),
            epoch=row.epoch,
            step=row.step,
            best_score=max(self.best.best_score, scores.rank),
            scores=named_scores("val", scores),
        )
        if scores.rank >= self.best.best_score:  # of equals the later one, which has learnt more
            self.best = now
            save_checkpoint(self.run / "best.pt", now)
        write_rows(self.run / "history.csv", self.history)
        write_rows(self.run / "timings.csv", self.timings)
        save_checkpoint(self.run / "last.pt", replace(now, **self.fitting.state()))

    def restore(self, note: Note) -> None:
        """Go on after the last complete epoch; UsageError where another run left the folder.

        `check_resumable` has found already what can be told without data.
        """
        last = load_checkpoint(self.run / "last.pt")
        if last.hashes["settings"] != self.best.hashes["settings"]:
            raise _other_settings(self.run, changed_settings(last.settings, self.best.settings))
        if last.hashes["data"] != self.best.hashes["data"]:
            raise UsageError(f"{self.run}: was started with other data; give another --output")
        self.fitting.restore(last)
        if last.threads != torch.get_num_threads():
            note(
                f"this run was computed by {last.threads} threads, and goes on with "
                f"{torch.get_num_threads()}: figures may differ in their last digits"
            )
        rows = read_rows(self.run / "history.csv", task_of(last.settings).row)
        self.history = rows[: last.epoch]
        self.timings = read_rows(self.run / "timings.csv", Timing)[: last.epoch]
        self.best = load_checkpoint(self.run / "best.pt")
        note(f"resuming after epoch {self.epochs}")


def check_resumable(run: Path, settings: TrainSettings) -> None:
    """UsageError where the run in a folder had other settings or teachers."""
    last = load_checkpoint(run / "last.pt")
    if changed := changed_settings(last.settings, settings):
        raise _other_settings(run, changed)
    if last.hashes.get("teachers", "") != teachers_hash(settings.teachers):
        raise UsageError(
            f"{run}: was started with another --teacher; give that, or another --output"
        )


def _other_settings(run: Path, changed: Sequence[str]) -> UsageError:
    which = f" ({'; '.join(changed)})" if changed else ""
    return UsageError(
        f"{run}: was started with other settings{which}; give those, or another --output"
    )
