"""A contact sheet of training patches beside what is to be learnt from them, before training.

    image as the network sees it | the same under its truth | target
    the frame it was cut from

Under the truth, objects have coloured outlines. In the target the background is black, the
foreground grey, and its cores white; without cores, the foreground is white. Classes have their
colours in both. What neither teaches nor scores is dim and striped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.results.pictures.caption import draw_strip
from engine.results.pictures.files import contact_sheet, png
from engine.results.pictures.panels import Picture, grey, grey_panel, outlined, side_by_side
from engine.store.claim import check_writable
from engine.store.files import whole_file
from train.data.dataset import load_data
from train.data.patches import Patches, make_example, shares_by_area
from train.settings import TrainSettings
from train.tasks import task_of

COUNT = 24  # patches on the sheet, the first of the run
GAMMA = 0.6  # lifts what is dim: the brightness of objects of one frame spans decades
STRIPE = 4  # px


def write_preview(settings: TrainSettings, run: Path, note: Callable[[str], None]) -> Path:
    """Write `preview.png` to the folder `run`, with the first patches that training would draw."""
    check_writable(run)
    data = load_data(settings)
    for remark in data.remarks:
        note(remark)
    shares = shares_by_area(data.train, data.is_synthetic, settings.synthetic_share)
    patches = Patches(data.train, shares, settings, epoch=0, count=COUNT)
    path = run / "preview.png"
    with whole_file(path) as partial:
        png(partial, contact_sheet([_drawn(patches, index) for index in range(COUNT)]))
    return path


def _drawn(patches: Patches, index: int) -> Picture:
    """One patch, its truth and its target, above the name of its frame."""
    image, labels, counts = patches.draw(index)
    task = task_of(patches.settings)
    target = make_example(image, labels, counts, patches.settings).target.numpy()
    picture = _seen(image)
    truth = outlined(_dimmed(picture, ~counts), labels, task.label_classes)
    panels = side_by_side([picture, truth, _dimmed(task.draw_target(target), ~counts)])
    return np.concatenate([panels, draw_strip(panels.shape[1], patches.name(index))])


def _seen(image: NDArray[np.float32]) -> Picture:
    """A normalised patch (C, Y, X): three channels in red, green and blue, others in grey."""
    if len(image) == 3:
        return np.stack([grey(channel, 0, 1, GAMMA) for channel in image], axis=-1)
    return grey_panel(grey(image.mean(axis=0), 0, 1, GAMMA))


def _dimmed(picture: Picture, where: NDArray[np.bool_]) -> Picture:
    rows, columns = np.indices(where.shape)
    stripes = (rows + columns) // STRIPE % 2
    dim = picture // 2 + np.where(stripes, 56, 24).astype(np.uint8)[..., None]
    return np.where(where[..., None], dim, picture)
