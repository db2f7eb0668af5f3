"""A run on slices of the heart, patient by patient: `python -m benchmarks.heart RUN`.

    python -m benchmarks.heart RUN [--data DIR] [--part test|val] [--turn QUARTERS]
                               [--pictures DIR] [--save]

RUN is what `stackseg train --layout color-masks --palette acdc` left. Of the patients that it held
back: Dice by structure, per patient and phase, voxels pooled, structures that are nowhere left
out; and by where a slice lies in its volume, which tells where the network falls short. --data says
where the images lie now. --turn turns all images by quarters, counter-clockwise. --pictures draws
every slice of three patients, prediction beside truth.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.patients import Volume, by_volume, confusions, dice, means, part_frames
from benchmarks.record import RESULTS
from train.checkpoint import Checkpoint, load_checkpoint
from train.data.frames import LabelledFrame
from train.data.patches import normalised
from train.predict import predict_logits
from train.strips import Place, below_each_other, densest_window, draw_row, write_png
from train.summary import Summary, read_summary
from train.tasks.class_scores import ClassScores

PLACES = ("first slice", "first third", "middle third", "last third", "last slice")
SIDE = 128  # px of a picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--part", choices=["test", "val"], default="test")
    parser.add_argument("--turn", type=int, choices=range(4), default=0)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/*.md")
    options = parser.parse_args()
    best = load_checkpoint(options.run / "best.pt")
    settings = best.settings
    if options.data is not None:
        settings = settings.model_copy(update={"data": str(options.data)})
    frames = [turned(frame, options.turn) for frame in part_frames(settings, options.part)]
    tables = confusions(best, frames)
    summary = read_summary(options.run) if (options.run / "summary.json").exists() else None
    text = report(best, tables, summary, options.part)
    print(text)
    if options.save:
        (RESULTS / f"heart-{time.strftime('%Y-%m-%d')}.md").write_text(text)
    if options.pictures is not None:
        draw(options.pictures, best, frames, tables)


def turned(frame: LabelledFrame, quarters: int) -> LabelledFrame:
    """A frame as it is when its patient lies turned."""
    image = np.ascontiguousarray(np.rot90(frame.image, quarters, axes=(1, 2)))
    return replace(
        frame, image=image, labels=np.ascontiguousarray(np.rot90(frame.labels, quarters))
    )


def report(
    best: Checkpoint, tables: Mapping[str, NDArray[np.int64]], summary: Summary | None, part: str
) -> str:
    """The tables as Markdown."""
    names = [one.name for one in best.settings.classes]
    scores = dice(by_volume(tables), names)
    mean = means(scores)
    over = {at: float(np.nanmean(list(one.values()))) for at, one in scores.items()}
    patients = sorted({patient for patient, _ in scores})
    columns = ["patient", "phase", *names[1:], "mean"]
    rows = [
        [*at, *(f"{v:.3f}" for v in one.values()), f"{over[at]:.3f}"] for at, one in scores.items()
    ]
    total = float(np.mean(list(mean.values())))
    rows.append(["**all**", "", *(f"**{v:.3f}**" for v in mean.values()), f"**{total:.3f}**"])
    places = [[place, *figures] for place, figures in by_place(tables, names).items()]
    lines = [
        "# Slices of the heart", "",
        _how(best, summary), "",
        f"Dice of the {len(patients)} {'test' if part == 'test' else 'validation'} patients "
        f"({', '.join(p.removeprefix('patient') for p in patients)}), per patient and phase, "
        "voxels pooled:", "",
        *_table(columns, rows), "",
        "By where a slice lies in its volume, voxels of all patients pooled; z00 is first:", "",
        *_table(["", *names[1:]], places), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _how(best: Checkpoint, summary: Summary | None) -> str:
    network = best.network
    words = (
        f"{network.arch} {'-'.join(map(str, network.channels))}, shuffle {network.shuffle}; best "
        f"epoch {best.epoch} of {best.settings.epochs}, {best.settings.steps_per_epoch} steps of "
        f"{best.settings.batch} patches of {best.settings.patch} px each; seed "
        f"{best.settings.seed}"
    )
    if summary is None:
        return f"{words}; the run has not ended"
    return (
        f"{words}; {summary.weights:,} weights; {summary.seconds / 60:.0f} minutes on "
        f"{summary.processor}, {summary.threads} thread(s) of {summary.cores} cores, shared"
    )


def by_place(tables: Mapping[str, NDArray[np.int64]], names: Sequence[str]) -> dict[str, list[str]]:
    """Dice by structure for slices at either end of their volumes, and in between."""
    volumes: dict[str, list[str]] = {}
    for name in sorted(tables):
        volumes.setdefault(name.rpartition("_z")[0], []).append(name)
    pooled: dict[str, list[NDArray[np.int64]]] = {place: [] for place in PLACES}
    for slices in volumes.values():
        last = len(slices) - 1
        for at, name in enumerate(slices):
            third = PLACES[1 + min(3 * at // len(slices), 2)]
            place = PLACES[0] if at == 0 else PLACES[-1] if at == last else third
            pooled[place].append(tables[name])
    return {
        place: [f"{v:.3f}" for v in ClassScores(tuple(names), np.sum(some, axis=0)).dice.values()]
        for place, some in pooled.items()
        if some
    }


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(row)} |" for row in cells]


def draw(
    folder: Path,
    best: Checkpoint,
    frames: Sequence[LabelledFrame],
    tables: Mapping[str, NDArray[np.int64]],
) -> None:
    """Every slice of the best, the middle and the worst patient: image, truth, prediction."""
    names = [one.name for one in best.settings.classes]
    scores = dice(by_volume(tables), names)
    order: list[Volume] = sorted(scores, key=lambda at: float(np.nanmean([*scores[at].values()])))
    folder.mkdir(parents=True, exist_ok=True)
    network = best.build()
    for rank, at in (("worst", 0), ("middle", len(order) // 2), ("best", len(order) - 1)):
        patient, phase = order[at]
        rows = []
        for frame in frames:
            if f"{patient}_{phase}_" in frame.name:
                place = Place(frame, densest_window(frame, SIDE))
                logits = predict_logits(network, normalised(frame))
                rows.append(draw_row(place, logits[:, place.window[0], place.window[1]],
                                     best.settings))  # fmt: skip
        write_png(folder / f"{rank}-{patient}-{phase}.png", below_each_other(rows))


if __name__ == "__main__":
    main()
