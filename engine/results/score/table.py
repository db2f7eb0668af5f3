"""A comparison as a table of text, as CSV, and as sentences about it."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from engine.errors import plural
from engine.results.score.classes import ClassScore
from engine.results.score.comparison import Comparison
from engine.results.score.groups import ACDC
from engine.results.score.metrics import THRESHOLDS, Score
from engine.results.score.scale import Scale
from engine.results.score.sides import Scored
from engine.stacks.guard import some
from engine.store.files import whole_file

OBJECT_SCORES = {"iou": "IoU", "dice": "Dice", "seg": "SEG", "det": "DET", "op_csb": "OP_CSB"} | {
    f"{name.lower()}_{at:g}": f"{name}@{at:g}" for name in ("F1", "AP") for at in THRESHOLDS
}
# What a narrow terminal shows; of classes it is the table's own order.
READ_FIRST = (
    "frame", "objects", "truth", "SEG", "DET", "IoU", "F1@0.5", "AP@0.5", "OP_CSB", "Dice",
)  # fmt: skip
CLASS_SCORES = {  # and their decimals in the table; volumes in voxels have one
    "dice": 4,
    "iou": 4,
    "hd95": 3,
    "volume": 3,
    "truth_volume": 3,
    "volume_error": 3,
    "volume_error_percent": 2,
    "absolute_volume_error_percent": 2,
}
Row = tuple[str, ...]


def table(comparison: Comparison) -> list[list[Row]]:
    """The table as text: the header, the frames, the groups and their mean, the pooled row."""
    columns = _columns(comparison)
    counts = ["objects", "truth"] if comparison.classes is None else []
    frames = [
        (comparison.title(frame), *_cells(comparison, frame.score, columns))
        for frame in comparison.frames
    ]
    groups, found = [], comparison.groups
    if len(found) < len(comparison.frames):
        groups = [(name, *_cells(comparison, s, columns)) for name, s in found.items()]
    if found:
        what = "stacks" if comparison.group is None else "groups"
        cells = _scores(comparison.mean_of_groups(), columns)
        groups.append((f"mean of {len(found)} {what}", *("" for _ in counts), *cells))
    pooled = [("pooled", *_cells(comparison, comparison.pooled, columns))]
    header = [("frame", *counts, *columns.values())]
    return [part for part in (header, frames, groups, pooled) if part]


def class_table(comparison: Comparison) -> list[list[Row]]:
    """Scores by class as text: the header, the groups, their mean, the pooled rows; [] of objects.

    Of each class its groups follow each other.
    """
    classes, scale = comparison.classes, comparison.scale
    if not classes:
        return []
    volumes = [f"{what} {scale.volume}" for what in ("volume", "truth", "error")]
    percents = ["error %", "|error| %"]
    header = ("class", "group", "Dice", "IoU", f"HD95 {scale.length}", *volumes, *percents, "empty")
    groups, found = [], comparison.groups
    if len(found) < len(comparison.frames):
        groups = [
            (c.name, name, *_class_cells(score.class_scores(c.value), scale), "")
            for c in classes
            for name, score in found.items()
            if isinstance(score, ClassScore)
        ]
    means, mean = [], comparison.mean_of_groups()
    what = "stacks" if comparison.group is None else "groups"
    for c in classes if found else ():
        scores = {score: mean[f"{score}_{c.name}"] for score in CLASS_SCORES}
        empty = str(comparison.left_out(c.value).empty)
        means.append((c.name, f"mean of {len(found)} {what}", *_class_cells(scores, scale), empty))
    pooled = [
        (c.name, "pooled", *_class_cells(comparison.pooled.class_scores(c.value), scale), "")
        for c in classes
        if isinstance(comparison.pooled, ClassScore)
    ]
    return [part for part in ([header], groups, means, pooled) if part]


def hints(comparison: Comparison) -> list[str]:
    """What casts doubt on the scores, to be read before them."""
    lines = []
    if aside := [comparison.title(frame) for frame in comparison.frames if frame.set_aside]:
        lines.append(
            f"the job set {plural(len(aside), 'frame')} aside ({some(aside, limit=10)}): they have "
            "no labels, and are scored as empty"
        )
    apart = next((f for f in comparison.frames if f.in_pieces is not None), None)
    if apart is not None and apart.in_pieces is not None:
        assert apart.sides.truth.labels is not None
        where = apart.sides.truth.labels.where(apart.pairs[0].labels or apart.number)
        lines.append(apart.in_pieces.hint(where))
    origins = [f.sides.ours.origin for f in comparison.frames if len(f.pairs) == 1]
    if any(o is not None and o.job.report.settings.connect == "z" for o in origins):
        lines.append(
            "the result's objects continue from plane to plane; --volumes scores them whole"
        )
    return lines


def notes(comparison: Comparison) -> list[str]:
    """What a reader of the table has to know: what was compared, and what was omitted."""
    stacks, parts = comparison.n_stacks, [plural(len(comparison.frames), "frame")]
    parts[0] += f" of {stacks} stacks compared" if stacks > 1 else " compared"
    if comparison.matched_by != ("number",):
        parts[0] += f", matched by {' and '.join(comparison.matched_by)}"
    if comparison.without_truth:
        parts.append(f"{comparison.without_truth} without a truth omitted")
    if comparison.truth_without_result:
        parts.append(f"{comparison.truth_without_result} of the truth outside the result omitted")
    lines = ["; ".join(parts)]
    if comparison.classes is None:
        annotated = comparison.pooled.frames
        lines.append(f"DET is against {' and '.join(comparison.det_against)}")
        if not annotated:
            lines[-1] += "; no frame here has a truth of objects, so that no other score is defined"
        elif annotated < len(comparison.frames):
            lines[-1] += f"; the other scores are of the {annotated} with a truth of objects"
    lines += _class_notes(comparison)
    if comparison.masks:
        lines.append("the objects of the truth are the connected pieces of its masks")
    if len(comparison.frames) > 1 and (worst := comparison.worst()):
        lines.append(f"worst: {', '.join(map(comparison.title, worst))}")
    return lines


def _class_notes(comparison: Comparison) -> list[str]:
    """What the scores of classes leave out, and how their distances are measured."""
    if not comparison.classes or not isinstance(comparison.pooled, ClassScore):
        return []
    lines = []
    if comparison.group == ACDC:
        lines.append("pooled by patient and phase, which the names tell; --group chooses another")
    within = "frames, since the distance from plane to plane is not known (--spacing Z,Y,X)"
    if comparison.volumes is not None:
        within = "volumes"
    elif not comparison.has_planes:
        within = "frames"
    lines.append(f"HD95 is measured within {within}")
    lacking = {c.name: comparison.pooled.one_sided(c.value) for c in comparison.classes}
    if any(lacking.values()):
        listed = ", ".join(f"{name} {n}" for name, n in lacking.items() if n)
        unit = "frames" if comparison.volumes is None else "volumes"
        lines.append(f"HD95 leaves out {unit} in which only one side has the class: {listed}")
    empty = {c.name: comparison.left_out(c.value).empty for c in comparison.classes}
    if any(empty.values()):
        listed = ", ".join(f"{name} {n}" for name, n in empty.items() if n)
        what = "stacks" if comparison.group is None else "groups"
        lines.append(f"means leave out {what} in which neither side has the class: {listed}")
    return lines


def write_csv(comparison: Comparison, path: Path) -> None:
    """A row per frame, with all counts and scores as they are; empty where one is not defined."""
    rows = comparison.rows()
    with (
        whole_file(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _columns(comparison: Comparison) -> dict[str, str]:
    """What the table shows: names of scores, and their headings."""
    if comparison.classes is None:
        return OBJECT_SCORES
    dice = {f"dice_{c.name}": f"Dice {c.name}" for c in comparison.classes}
    iou = {f"iou_{c.name}": f"IoU {c.name}" for c in comparison.classes}
    return {"mean_dice": "mean Dice"} | dice | iou | {"dice": "any Dice", "iou": "any IoU"}


def _cells(comparison: Comparison, score: Scored, columns: Mapping[str, str]) -> Row:
    scores = _scores(comparison.scores(score), columns)
    if not isinstance(score, Score):
        return scores
    truth = str(score.truth_objects) if score.frames else "-"
    return (str(score.counts()["objects"]), truth, *scores)


def _class_cells(scores: Mapping[str, float], scale: Scale) -> Row:
    decimals = CLASS_SCORES
    if scale.volume == "voxels":
        decimals = CLASS_SCORES | {"volume": 1, "truth_volume": 1, "volume_error": 1}
    return tuple(
        "-" if scores[name] != scores[name] else f"{scores[name]:.{n}f}"
        for name, n in decimals.items()
    )


def _scores(scores: Mapping[str, float], columns: Mapping[str, str]) -> Row:
    return tuple("-" if scores[c] != scores[c] else f"{scores[c]:.4f}" for c in columns)
