"""Runs side by side, as the closing table of a study: network, cost, scores, speed."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from engine.errors import UsageError, plural
from engine.job.report import machine
from engine.store.files import whole_file
from train.checkpoint import Checkpoint, load_checkpoint
from train.summary import Summary, read_summary

FRAME = (700, 1100)  # px (Y, X)
REPEATS = 5
SCORE, COST = "#00798c", "#7a5195"  # colours of bars


@dataclass(frozen=True)
class Row:
    """One run. A score that its checkpoint lacks is None."""

    run: str
    network: str  # in words: architecture and channels
    weights: int  # values that are learnt
    epochs: int
    best_epoch: int
    training_seconds: float
    trained_on: str  # processor or GPU, and precision
    part: str  # "test" or "val": of what the scores are
    iou: float | None  # foreground
    loss: float  # of the validation part, at the best epoch
    seg: float | None  # SEG of the Cell Tracking Challenge
    f1: float | None  # mean over IoU 0.5 to 0.9
    f1_50: float | None  # at IoU 0.5
    dice: float | None  # mean over the classes but background
    dice_by_class: Mapping[
        str, float | None
    ]  # by the classes' names; empty where objects are told apart
    ms_per_frame: float  # median of PyTorch forward passes, measured here

    @property
    def is_of_classes(self) -> bool:
        """Whether the network tells classes apart, which have no SEG and no F1."""
        return bool(self.dice_by_class)


HEADINGS = {
    "run": "run", "network": "network", "weights": "weights", "epochs": "epochs",
    "best_epoch": "best", "training_seconds": "training", "part": "scores of", "iou": "IoU",
    "loss": "loss", "seg": "SEG", "f1": "F1@0.5-0.9", "f1_50": "F1@0.5", "dice": "Dice",
    "ms_per_frame": "ms a frame",
}  # fmt: skip
OF_OBJECTS, OF_CLASSES = ("seg", "f1", "f1_50"), ("dice",)


def compare_runs(runs: Sequence[Path], frame: tuple[int, int] = FRAME) -> list[Row]:
    """A row for each run, in the order given. `frame` (Y, X) px is what is timed.

    Scores are those of the test part where the run has one, else of the validation part. Networks
    are timed in turns, so that a machine that is busy for a while is unfair to none.
    """
    read = [(load_checkpoint(run / "best.pt"), read_summary(run)) for run in runs]
    taken = time_networks([best for best, _ in read], frame)
    names = _names(runs)
    return [
        _row(name, best, summary, 1000 * seconds)
        for name, (best, summary), seconds in zip(names, read, taken, strict=True)
    ]


def time_networks(networks: Sequence[Checkpoint], frame: tuple[int, int]) -> list[float]:
    """Median seconds of a forward pass of each network, in fp32 on the CPU."""
    try:
        passes = [_forward(checkpoint, frame) for checkpoint in networks]
        for once in passes:
            once()  # what is allocated and chosen the first time
    except (MemoryError, RuntimeError) as error:
        told = ("memory", "Storage size")  # by PyTorch
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in told):
            raise
        raise UsageError(
            f"--frame {frame[0]}x{frame[1]}: there is not enough memory for a frame of that size; "
            "give a smaller one"
        ) from error
    taken: list[list[float]] = [[] for _ in passes]
    for _ in range(REPEATS):
        for seconds, once in zip(taken, passes, strict=True):
            begin = time.perf_counter()
            once()
            seconds.append(time.perf_counter() - begin)
    return [statistics.median(seconds) for seconds in taken]


def _forward(checkpoint: Checkpoint, frame: tuple[int, int]) -> Callable[[], None]:
    network = checkpoint.build().to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((1, checkpoint.network.n_in, *frame), generator=generator)
    image = image.contiguous(memory_format=torch.channels_last)

    def once() -> None:
        with torch.inference_mode():
            network(image)

    return once


def _row(name: str, best: Checkpoint, summary: Summary, ms: float) -> Row:
    scores = best.scores
    part = "test" if any(key.startswith("test_") for key in scores) else "val"
    device = summary.processor if summary.device == "cpu" else summary.device
    return Row(
        run=name,
        network=_in_words(best),
        weights=summary.weights,
        epochs=summary.epochs,
        best_epoch=summary.best_epoch,
        training_seconds=summary.seconds,
        trained_on=f"{device}, {summary.precision}",
        part=part,
        iou=scores.get(f"{part}_iou"),
        loss=summary.loss["val"],
        seg=scores.get(f"{part}_seg"),
        f1=scores.get(f"{part}_f1"),
        f1_50=scores.get(f"{part}_f1_50"),
        dice=scores.get(f"{part}_mean_dice"),
        dice_by_class={
            one.name: scores.get(f"{part}_dice_{one.name}") for one in best.settings.classes[1:]
        },
        ms_per_frame=round(ms, 1),
    )


def _in_words(best: Checkpoint) -> str:
    """The network as one reads it in a table: "unet 16-32-64-128 shuffle 2"."""
    args = best.network
    words = [args.arch, "-".join(map(str, args.channels))]
    if args.shuffle > 1:
        words.append(f"shuffle {args.shuffle}")
    return " ".join(words)


def _names(runs: Sequence[Path]) -> list[str]:
    """Names of the folders; whole paths where two have the same. UsageError for one run twice."""
    resolved = [run.resolve() for run in runs]
    if len(set(resolved)) < len(resolved):
        raise UsageError("a run is given more than once; name each run once")
    names = [run.name for run in resolved]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The header, and a row of text for each run; a dash where a score is missing.

    Scores that none of these runs can have are left out; Dice has a column for each class as well.
    """
    kinds = {row.is_of_classes for row in rows}
    absent = (*(() if False in kinds else OF_OBJECTS), *(() if True in kinds else OF_CLASSES))
    names = [name for name in HEADINGS if name not in absent]
    classes = _classes(rows)
    at = names.index("ms_per_frame")
    header = [HEADINGS[name] for name in names]
    header[at:at] = [f"Dice {name}" for name in classes]
    lines = []
    for row in rows:
        line = [_cell(row, name) for name in names]
        line[at:at] = [_score(row.dice_by_class.get(name)) for name in classes]
        lines.append(line)
    return header, lines


def _classes(rows: Sequence[Row]) -> list[str]:
    """The classes of all runs, each once, in the order of the first run that has it."""
    return list(dict.fromkeys(name for row in rows for name in row.dice_by_class))


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _cell(row: Row, name: str) -> str:
    value = getattr(row, name)
    if value is None:
        return "-"
    if name == "training_seconds":
        minutes, seconds = divmod(round(value), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{seconds:02d}"
    if name == "ms_per_frame":
        return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
    if name == "weights":
        return f"{value:,}"
    return _score(value) if isinstance(value, float) else str(value)


def footnotes(rows: Sequence[Row], frame: tuple[int, int]) -> list[str]:
    """What a reader of the table has to know."""
    y, x = frame
    threads = plural(torch.get_num_threads(), "thread")
    lines = [
        f"ms a frame: {y}x{x} px by PyTorch in fp32, median of {REPEATS}, on {threads} of "
        f"{machine().processor}",
        "training h:mm:ss, on " + "; ".join(dict.fromkeys(row.trained_on for row in rows)),
    ]
    if any(row.part == "val" for row in rows):
        lines.append("scores of val flatter: epoch and threshold were chosen on these frames")
    return lines


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """All figures as they are; empty where a score is missing. Of classes, `dice_NAME` as well."""
    plain = [f.name for f in fields(Row) if f.name != "dice_by_class"]
    classes = _classes(rows)
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*plain, *(f"dice_{name}" for name in classes)])
        for row in rows:
            dice = [row.dice_by_class.get(name) for name in classes]
            writer.writerow([*(getattr(row, name) for name in plain), *dice])


def draw(path: Path, rows: Sequence[Row], notes: Sequence[str]) -> None:
    """Bars of scores, of training time and of time a frame, a bar for each run, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.8 + 0.55 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    scores: dict[str, list[float | None]] = {
        "IoU": [row.iou for row in rows],
        "SEG": [row.seg for row in rows],
        "F1 at IoU 0.5": [row.f1_50 for row in rows],
        "Dice": [row.dice for row in rows],
    }
    scores |= {
        f"Dice, {name}": [row.dice_by_class.get(name) for row in rows] for name in _classes(rows)
    }
    costs: dict[str, list[float | None]] = {
        "training, min": [row.training_seconds / 60 for row in rows],
        "ms a frame": [row.ms_per_frame for row in rows],
    }
    panels = [(*panel, ".3f", SCORE) for panel in scores.items() if any(panel[1])]
    panels += [(*panel, ",.1f", COST) for panel in costs.items()]
    labels = [f"{row.run} ({row.part})\n{row.network}, {row.weights:,}" for row in rows]
    axes = [figure.add_subplot(1, len(panels), n) for n in range(1, len(panels) + 1)]
    for ax, (title, values, digits, colour) in zip(axes, panels, strict=True):
        bars = ax.barh(range(len(rows)), [value or 0 for value in values], color=colour)
        texts = ["-" if value is None else f"{value:{digits}}" for value in values]
        ax.bar_label(bars, texts, padding=3, fontsize=8)
        ax.set_title(title, fontsize=10)
        ax.set_yticks(range(len(rows)), labels if ax is axes[0] else [""] * len(rows), fontsize=8)
        ax.tick_params(axis="x", labelsize=8)
        ax.invert_yaxis()
        ax.margins(x=0.4)  # room for the figures
    figure.text(0.005, -0.01, "\n".join(notes), fontsize=7, va="top")
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=120, format="png", bbox_inches="tight")
