"""Learning curves of classes: loss, accuracy, and the Dice of each class in its colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.results.result import LabelClass
from engine.store.files import whole_file
from train.tasks.class_scores import ClassEpoch

BACKDROP = "#d9d9d9"  # on which white, yellow and blue can be told apart


def draw_class_curves(
    path: Path, history: Sequence[ClassEpoch], classes: Sequence[LabelClass]
) -> None:
    """Write them as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(13, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    epochs = [row.epoch for row in history]
    best = max(history, key=lambda row: row.val_mean_dice if row.val_mean_dice >= 0 else -1)
    loss, accuracy, dice = figure.subplots(1, 3)
    for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
        for part, line in (("train", "--"), ("val", "-")):
            values = [getattr(row, f"{part}_{name}") for row in history]
            axes.plot(epochs, values, line, color="#7a5195", label=part)
        axes.set(title=name.capitalize(), xlabel="epoch")
    dice.set_facecolor(BACKDROP)
    for one in classes[1:]:
        color = "#{:02x}{:02x}{:02x}".format(*one.rgb)
        dice.plot(epochs, [r.val_dice[one.name] for r in history], color=color, label=one.name)
    dice.plot(epochs, [r.val_mean_dice for r in history], "k--", label="mean")
    dice.axvline(best.epoch, color="#777777", linewidth=0.8)
    dice.annotate(f"best: {best.epoch}", (best.epoch, 0.02), xytext=(-3, 0), ha="right",
                  textcoords="offset points", fontsize=8)  # fmt: skip
    dice.set(title="Dice on the validation part", xlabel="epoch", ylim=(0, 1))
    for axes in (loss, accuracy, dice):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
