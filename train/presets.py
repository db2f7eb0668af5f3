"""U-Nets by name: what `--preset` sets, by the names of `TrainSettings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The bundled model's: foreground and core at half resolution, and bounded, which int8 likes.
    "nuclei": {"channels": (16, 32, 64, 128), "shuffle": 2, "activation": "relu6", "batch": 16},
    # A batch normalisation and a bias after each convolution, and a 3x3 output layer: 483,281
    # weights for one output, which is all of the foreground.
    "notebook": {
        "channels": (16, 32, 64, 128),
        "conv_bias": True,
        "head_kernel": 3,
        "shuffle": 1,
        "instances": "none",
        "batch": 4,
        "input_range": None,
    },
    # Slices of the heart: 1.9 million weights, at full resolution.
    "heart": {"channels": (64, 128, 256), "shuffle": 1},
    # The same at half resolution and a quarter of the width, deeper so as to see more of the
    # chest: 1.9 million weights, and a twentieth of the arithmetic.
    "heart-small": {
        "channels": (16, 32, 64, 128, 256),
        "shuffle": 2,
        "patch": 160,
        "batch": 4,
        "steps_per_epoch": 400,
    },
    # Ronneberger et al. 2015, but for the padding: 31,030,593.
    "ronneberger": {"channels": (64, 128, 256, 512, 1024), "norm": "none", "dropout": 0.5},
}
