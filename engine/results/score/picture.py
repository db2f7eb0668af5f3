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

from engine.errors import StacksegError, plural
from engine.results.pictures.caption import draw_strip
from engine.results.pictures.files import contact_sheet, png
from engine.results.pictures.panels import Picture, contrast, grey_panel, outlines
from engine.results.score.background import background
from engine.results.score.comparison import Comparison, FrameScore
from engine.results.score.metrics import Score
from engine.results.score.overlaps import count_overlaps, crop
from engine.store.files import whole_file

# Colours that red-green colour-blind people can distinguish (Okabe and Ito 2008); missed and
# spurious differ in their lines, too.
TRUTH, FOUND = (255, 255, 255), (86, 180, 233)
MISSED, SPURIOUS, WRONG = (230, 159, 0), (240, 90, 170), (0, 158, 115)
Colour = tuple[int, int, int]
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
    """A frame to be drawn: both sides and the image below them, all (Y, X)."""

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
        Stack to draw over. None: the input that its job recorded. Where
        that cannot be read, frames are drawn over black.
    """
    worst = comparison.worst()
    if not worst:
        return ["no picture: no frame has a score"]
    objects = comparison.classes is None
    pictures, problems = [], []
    for frame in worst:
        panel, problem = _panel(frame, comparison.ignore_border, image)
        problems += [problem] if problem else []
        drawn = _draw_objects(panel) if objects else _draw_classes(panel)
        drawn = np.pad(drawn, [(0, 0), (0, max(SMALLEST - drawn.shape[1], 0)), (0, 0)])
        caption = draw_strip(drawn.shape[1], f"{_name(comparison.title(frame))} · {_scores(frame)}")
        pictures.append(np.concatenate([drawn, caption]))
    sheet = contact_sheet(pictures)
    legend = _legend(sheet.shape[1], OBJECTS if objects else CLASSES)
    sheet = np.pad(sheet, [(0, 0), (0, legend.shape[1] - sheet.shape[1]), (0, 0)])
    with whole_file(path) as partial:
        png(partial, np.concatenate([sheet, legend]))
    return [*dict.fromkeys(problems), f"worst {plural(len(worst), 'frame')}: {path}"]


def _panel(frame: FrameScore, border: int, image: str | None) -> tuple[Panel, str | None]:
    labelled = [pair for pair in frame.pairs if pair.labels is not None]
    both = frame.sides.arrays(labelled or frame.pairs, markers=not labelled)
    result, truth = (crop(side, border) for side in both)
    if isinstance(frame.score, Score):
        found, true = _found(result, truth, by_iou=frame.score.frames > 0)
    else:
        found = true = result == truth
    volumes = [a.reshape(-1, *a.shape[-2:]) for a in (result, truth, found, true)]
    plane = int(np.argmax((volumes[1] != 0).sum((1, 2))))  # with most of the truth
    result, truth, found, true = (a[plane] for a in volumes)
    grey, problem = np.zeros(result.shape, np.uint8), None
    try:
        grey = contrast(crop(background(frame, plane, image), border), gamma=0.6)
        grey = grey // 5 * 3  # lines stand out against what is bright, too
        if grey.shape != result.shape:
            raise StacksegError(f"has frames of {grey.shape}, not {result.shape}")
    except StacksegError as error:
        grey, problem = np.zeros(result.shape, np.uint8), f"drawn over black: {error}"
    return Panel(*(_fit(a) for a in (result, truth, grey, found, true))), problem


def _found(
    result: NDArray[Any], truth: NDArray[Any], by_iou: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pixels of the objects that found each other: by IoU 0.5, or a marker by more than half."""
    overlaps = count_overlaps(result, truth)
    alike = overlaps.iou >= 0.5 if by_iou else overlaps.covering
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


def _draw_objects(panel: Panel) -> Picture:
    picture = grey_panel(panel.grey)
    picture[outlines(np.where(panel.true, panel.truth, 0))] = TRUTH
    picture[outlines(np.where(panel.found, panel.result, 0))] = FOUND
    picture[binary_dilation(outlines(np.where(panel.true, 0, panel.truth)))] = MISSED
    spurious = binary_dilation(outlines(np.where(panel.found, 0, panel.result)))
    rows, columns = np.indices(spurious.shape, sparse=True)
    picture[spurious & ((rows + columns) // 3 % 2 == 0)] = SPURIOUS
    return picture


def _draw_classes(panel: Panel) -> Picture:
    """The pixels that are wrong, half transparent, under the outlines of the truth."""
    picture = grey_panel(panel.grey)
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
        return f"mean Dice {score.mean_dice:.3f} · mean IoU {score.mean_iou:.3f}"
    if not score.frames:
        return f"DET {score.det:.3f}"
    return f"SEG {score.seg:.3f} · IoU {score.iou:.3f} · F1@0.5 {score.f1[0]:.3f}"


def _legend(width: int, colours: dict[str, Colour]) -> Picture:
    """What the colours mean, at least `width` px wide."""
    font = ImageFont.load_default(TEXT)
    ends = np.cumsum([TEXT + 6 + font.getlength(name) + 2 * GAP for name in colours])
    strip = Image.new("RGB", (max(width, GAP + int(ends[-1])), TEXT + 2 * GAP))
    draw = ImageDraw.Draw(strip)
    for x, (name, colour) in zip(GAP + np.array([0, *ends]), colours.items(), strict=False):
        draw.rectangle((x, GAP, x + TEXT, GAP + TEXT), fill=colour)
        draw.text((x + TEXT + 6, GAP + TEXT / 2), name, "white", font, anchor="lm")
    return np.asarray(strip)
