"""The history of a run: as CSV, a row an epoch, and as a picture of learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.store.files import whole_file
from train.rows import EpochRow, TableRow, figure, read_rows, write_rows
from train.scores import Scores

__all__ = ["Epoch", "Timing", "draw_curves", "read_rows", "write_rows"]


@dataclass(frozen=True)
class Epoch(EpochRow):
    """One row of history.csv. Nothing in it depends on the clock: the same seed, the same rows.

    A score that nothing defines is NaN here, and empty there.
    """

    epoch: int  # from 1
    step: int  # optimiser steps done
    lr: float  # learning rate of the last step
    train_loss: float
    train_iou: float  # foreground IoU on the varied patches
    val_loss: float
    val_iou: float  # foreground IoU of whole validation frames, pooled
    val_seg: float  # SEG of objects
    val_f1: float  # mean F1 of objects at IoU 0.5 to 0.9
    val_f1_50: float  # F1 at IoU 0.5

    @property
    def rank(self) -> float:
        """What the best epoch is chosen by."""
        return Scores(self.val_iou, self.val_seg, self.val_f1, self.val_f1_50).rank

    def in_words(self) -> str:
        """The figures, for a line on the screen."""
        return (
            f"loss {self.train_loss:.3f} (val {self.val_loss:.3f})  "
            f"IoU {figure(self.train_iou)} (val {figure(self.val_iou)})  "
            f"val SEG {figure(self.val_seg)}, F1 {figure(self.val_f1)}, "
            f"at 0.5 {figure(self.val_f1_50)}"
        )


@dataclass(frozen=True)
class Timing(TableRow):
    """One row of timings.csv: what depends on the clock, and so has a file of its own."""

    epoch: int  # from 1
    seconds: float  # training and validation
    waited: float  # seconds of it in which the network waited for patches


def draw_curves(path: Path, history: Sequence[Epoch]) -> None:
    """Loss, IoU and object scores over epochs, training dashed and validation solid, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    page = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(page)
    epochs = [row.epoch for row in history]
    best = max(history, key=lambda row: row.rank)
    left, right = page.subplots(1, 2)
    left.plot(epochs, [r.train_loss for r in history], "--", color="#7a5195", label="train")
    left.plot(epochs, [r.val_loss for r in history], "-", color="#7a5195", label="val")
    left.set(title="Loss", xlabel="epoch")
    right.plot(epochs, [r.train_iou for r in history], "--", color="#00798c", label="train IoU")
    right.plot(epochs, [r.val_iou for r in history], "-", color="#00798c", label="val IoU")
    right.plot(epochs, [r.val_seg for r in history], "-.", color="#333333", label="val SEG")
    right.plot(epochs, [r.val_f1 for r in history], ":", color="#333333", label="val F1 0.5-0.9")
    right.axvline(best.epoch, color="#999999", linewidth=0.8)
    right.annotate(f"best: {best.epoch}", (best.epoch, 0.02), xytext=(-3, 0), ha="right",
                   textcoords="offset points", fontsize=8)  # fmt: skip
    right.set(title="Foreground IoU, SEG and F1 of objects", xlabel="epoch", ylim=(0, 1))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    with whole_file(path) as partial:
        page.savefig(partial, dpi=120, format="png")
