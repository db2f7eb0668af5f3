"""Small data sets of colour masks on disk: slices of several sizes and patients, from a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from engine.truth.palette import read_palette
from train.settings import TrainSettings

SIZES = ((40, 56), (64, 48), (52, 52))


def heart_slice(
    seed: int, shape: tuple[int, int] = (48, 48)
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A grey image (Y, X) and class numbers: a ring (2) around a disc (3), beside a disc (1)."""
    rng = np.random.default_rng(seed)
    yy, xx = np.indices(shape) - np.array(shape)[:, None, None] / 2 + rng.uniform(-3, 3, (2, 1, 1))
    classes = np.zeros(shape, np.uint8)
    classes[np.hypot(yy, xx + 12) < 8] = 1
    classes[np.hypot(yy, xx - 4) < 11] = 2
    classes[np.hypot(yy, xx - 4) < 6] = 3
    grey = np.array([20, 120, 60, 220])[classes] + rng.normal(0, 6, shape)
    return grey.clip(0, 255).astype(np.uint8), classes


def acdc_colours(classes: NDArray[Any]) -> NDArray[np.uint8]:
    """A picture (Y, X, 3) of class numbers in the colours of the palette acdc."""
    rgb = np.array([one.rgb for one in read_palette("acdc").classes], np.uint8)
    return rgb[classes]


def write_hearts(root: Path, patients: int = 6, slices: int = 2) -> Path:
    """`images/patientNNN_zZZ.png` in grey and `masks/` of the same names."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for patient in range(patients):
        for z in range(slices):
            grey, classes = heart_slice(10 * patient + z, SIZES[patient % len(SIZES)])
            name = f"patient{patient:03d}_z{z:02d}.png"
            (root / "images" / name).write_bytes(imagecodecs.png_encode(grey))
            (root / "masks" / name).write_bytes(imagecodecs.png_encode(acdc_colours(classes)))
    return root


def heart_settings(data: Path | str, **values: Any) -> TrainSettings:
    """A run of classes that takes a moment."""
    given = {
        "data": str(data), "layout": "color-masks", "palette": "acdc", "channels": (4, 8),
        "patch": 48, "batch": 4, "workers": 0, "epochs": 2, "steps_per_epoch": 3,
        "device": "cpu", "precision": "fp32", "augment": "light", "val_fraction": 0.2,
    }  # fmt: skip
    return TrainSettings.model_validate(given | values)
