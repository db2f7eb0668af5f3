"""A picture of the worst frames: what is found, missed and spurious, drawn over the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation

from engine.errors import StacksegError
from engine.job.report.overlay import contrast, outlines
from engine.results.score.background import background
from engine.results.score.compare import Comparison, FrameScore
from engine.results.score.metrics import Score
from engine.results.score.overlaps import count_overlaps, crop
from engine.results.score.table import frame_names
from engine.store.files import whole_file

# Colours that people who see red and green alike tell apart (Okabe and Ito 2008); missed and
# spurious differ in their lines, too.
TRUTH, FOUND = (255, 255, 255), (86, 180, 233)
MISSED, SPURIOUS, WRONG = (230, 159, 0), (240, 90, 170), (0, 158, 115)
OBJECTS = {
    "found, truth": TRUTH,
    "found, result": FOUND,
    "missed (thick)": MISSED,
    "spurious (dotted)": SPURIOUS,
}
CLASSES = {
    "truth": TRUTH,
    "missed": MISSED,
    "spurious": SPURIOUS,
    "another class": WRONG,
}
SMALLEST, LARGEST = 480, 1400  # px of a panel's sides
TEXT, GAP = 18, 12  # px


@dataclass(frozen=True)
class Panel:
    """A frame to be drawn: both sides and what lies under them, all (Y, X)."""

    result: NDArray[Any]
    truth: NDArray[Any]
    grey: NDArray[np.uint8]
    found: NDArray[np.bool_]  # pixels of the result's objects that found one of the truth
    true: NDArray[np.bool_]  # pixels of the truth's objects that were found


def draw_worst(comparison: Comparison, path: Path, image: str | None = None) -> list[str]:
    """Write the worst three frames side by side as a PNG; returns what a reader has to know.

    Parameters
    ----------
    comparison
        What was compared; its labels are read again.
    path
        The PNG.
    image
        Stack to draw over. None: what the result was made from, as its job recorded it. Where
        that cannot be read, frames are drawn over black.
    """
    worst = comparison.worst()
    if not worst:
        return ["no picture: no frame has a score"]
    names = dict(zip(map(id, comparison.frames), frame_names(comparison), strict=True))
    objects = comparison.classes is None
    pictures, told = [], []
    for frame in worst:
        panel, problem = _panel(frame, comparison.ignore_border, image)
        told += [problem] if problem else []
        drawn = _draw_objects(panel) if objects else _draw_classes(panel)
        pictures.append(_captioned(drawn, [_name(names[id(frame)]), _scores(frame)]))
    sheet = _side_by_side(pictures, OBJECTS if objects else CLASSES)
    with whole_file(path) as partial:
        sheet.save(partial, format="PNG")
    return [*dict.fromkeys(told), f"worst {len(worst)} frames: {path}"]


def _panel(frame: FrameScore, border: int, image: str | None) -> tuple[Panel, str | None]:
    result, truth = (crop(side, border) for side in _both(frame))
    if isinstance(frame.score, Score):
        found, true = _found(result, truth, by_iou=frame.score.frames > 0)
    else:
        found = true = result == truth
    if result.ndim == 3:  # of a volume the plane with most of the truth
        plane = int(np.argmax((truth != 0).sum((1, 2))))
        result, truth, found, true = (a[plane] for a in (result, truth, found, true))
    else:
        plane = 0
    grey, problem = np.zeros(result.shape, np.uint8), None
    try:
        grey = contrast(crop(background(frame, plane, image), border), gamma=0.6)
        grey = grey // 5 * 3  # lines stand out against what is bright, too
        if grey.shape != result.shape:
            raise StacksegError(f"has frames of {grey.shape}, not {result.shape}")
    except StacksegError as error:
        grey, problem = np.zeros(result.shape, np.uint8), f"drawn over black: {error}"
    return Panel(*(_fit(a) for a in (result, truth, grey, found, true))), problem


def _both(frame: FrameScore) -> tuple[NDArray[Any], NDArray[Any]]:
    """Result and truth; the markers where there is no truth of objects."""
    pairs, sides = [p for p in frame.pairs if p.labels is not None], frame.sides
    if sides.classes is not None:
        return sides.classes_of(pairs)
    if pairs:
        return sides.result(pairs), sides.labels(pairs)
    return sides.result(frame.pairs), sides.markers(frame.pairs)


def _found(
    result: NDArray[Any], truth: NDArray[Any], by_iou: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pixels of the objects that found each other: by IoU 0.5, or a marker by more than half."""
    overlaps = count_overlaps(result, truth)
    half = 2 * overlaps.area > overlaps.truth_areas[overlaps.truth]
    alike = overlaps.iou >= 0.5 if by_iou else half
    ours, theirs = (np.unique(side[side != 0]) for side in (result, truth))
    return (
        np.isin(result, ours[overlaps.result[alike]]),
        np.isin(truth, theirs[overlaps.truth[alike]]),
    )


def _fit(image: NDArray[Any]) -> NDArray[Any]:
    """An image by whole steps smaller or larger, so that its longer side suits a panel."""
    longer = max(image.shape)
    step = math.ceil(longer / LARGEST)
    times = math.ceil(SMALLEST / longer)
    return image[::step, ::step].repeat(times, 0).repeat(times, 1)


def _draw_objects(panel: Panel) -> NDArray[np.uint8]:
    picture = np.repeat(panel.grey[:, :, None], 3, axis=2)
    picture[outlines(np.where(panel.true, panel.truth, 0))] = TRUTH
    picture[outlines(np.where(panel.found, panel.result, 0))] = FOUND
    picture[binary_dilation(outlines(np.where(panel.true, 0, panel.truth)))] = MISSED
    spurious = binary_dilation(outlines(np.where(panel.found, 0, panel.result)))
    rows, columns = np.indices(spurious.shape, sparse=True)
    picture[spurious & ((rows + columns) // 3 % 2 == 0)] = SPURIOUS
    return picture


def _draw_classes(panel: Panel) -> NDArray[np.uint8]:
    """The pixels that are wrong, half transparent, under the outlines of the truth."""
    picture = np.repeat(panel.grey[:, :, None], 3, axis=2)
    ours, theirs = panel.result != 0, panel.truth != 0
    for wrong, colour in (
        (theirs & ~ours, MISSED),
        (ours & ~theirs, SPURIOUS),
        (ours & theirs & ~panel.found, WRONG),
    ):
        picture[wrong] = picture[wrong] // 2 + np.array(colour, np.uint8) // 2
    picture[outlines(panel.truth)] = TRUTH
    return picture


def _name(frame: str) -> str:
    return f"frame {frame}" if frame.replace("/", "").isdecimal() else frame


def _scores(frame: FrameScore) -> str:
    score = frame.score
    if not isinstance(score, Score):
        return f"mean Dice {score.mean_dice:.3f}   mean IoU {score.mean_iou:.3f}"
    if not score.frames:
        return f"DET {score.det:.3f}"
    return f"SEG {score.seg:.3f}   IoU {score.iou:.3f}   F1@0.5 {score.f1[0]:.3f}"


def _captioned(pixels: NDArray[np.uint8], lines: list[str]) -> Image.Image:
    """A picture with lines of text above it, cut short where they are too long."""
    height, width = pixels.shape[:2]
    font = ImageFont.load_default(TEXT)
    head = len(lines) * (TEXT + 6) + 6
    panel = Image.new("RGB", (max(width, SMALLEST), height + head))
    draw = ImageDraw.Draw(panel)
    for row, line in enumerate(lines):
        while draw.textlength(line, font) > panel.width:
            line = line[:-2] + "…"
        draw.text((0, row * (TEXT + 6)), line, "white", font)
    panel.paste(Image.fromarray(pixels), (0, head))
    return panel


def _side_by_side(
    panels: list[Image.Image], legend: dict[str, tuple[int, int, int]]
) -> Image.Image:
    """Panels in a row, or below each other where they are wide, over what the colours mean."""
    font = ImageFont.load_default(TEXT)
    wide = all(p.width > p.height for p in panels) and panels[0].width > 2 * SMALLEST
    width = max(p.width for p in panels) if wide else sum(p.width + GAP for p in panels) - GAP
    height = sum(p.height + GAP for p in panels) if wide else max(p.height for p in panels) + GAP
    sheet = Image.new("RGB", (width + 2 * GAP, height + TEXT + 2 * GAP))
    x = y = GAP
    for panel in panels:
        sheet.paste(panel, (x, y))
        x, y = (x, y + panel.height + GAP) if wide else (x + panel.width + GAP, y)
    draw = ImageDraw.Draw(sheet)
    x = GAP
    for name, colour in legend.items():
        draw.rectangle((x, sheet.height - TEXT - 2, x + TEXT, sheet.height - GAP), fill=colour)
        draw.text((x + TEXT + 6, sheet.height - TEXT - 8), name, "white", font)
        x += TEXT + 6 + int(draw.textlength(name, font)) + 2 * GAP
    return sheet
