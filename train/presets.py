"""U-Nets by name: what `--preset` sets, by the names of `TrainSettings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The bundled model's: 482,449 weights.
    "nuclei": {"channels": (16, 32, 64, 128)},
    # A batch normalisation and a bias after each convolution, and a 3x3 output layer: 483,281.
    "notebook": {"channels": (16, 32, 64, 128), "conv_bias": True, "head_kernel": 3},
    # Ronneberger et al. 2015, but for the padding: 31,030,593.
    "ronneberger": {"channels": (64, 128, 256, 512, 1024), "norm": "none", "dropout": 0.5},
}
