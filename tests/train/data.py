"""Small data sets on disk, in both layouts, from a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray


def nuclei(
    seed: int, size: int = 64, count: int = 6
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Bright discs on a dim noisy background, uint16 (size, size), and their labels."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.uint16)
    for label in range(1, count + 1):
        y, x = rng.uniform(4, size - 4, 2)
        labels[(yy - y) ** 2 + (xx - x) ** 2 < rng.uniform(4, 7) ** 2] = label
    image = 1000 + 400 * (labels > 0) + rng.normal(0, 20, labels.shape)
    return image.astype(np.uint16), labels


def write_pairs(root: Path, names: list[str], size: int = 64, truth: str = "labels") -> Path:
    """`images/NAME` with `labels/NAME`; names may begin with a sub-folder."""
    for seed, name in enumerate(names):
        top, file = (root / Path(name).parent, Path(name).name)
        image, labels = nuclei(seed, size)
        for folder, pixels in (("images", image), (truth, labels)):
            (top / folder).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(top / folder / file, pixels)
    return root


def write_ctc(root: Path, sequences: dict[str, int], size: int = 80, kind: str = "ST") -> Path:
    """Sequences by name with their number of frames; every second frame has truth."""
    for number, (sequence, frames) in enumerate(sequences.items()):
        images, truth = root / sequence, root / f"{sequence}_{kind}" / "SEG"
        images.mkdir(parents=True)
        truth.mkdir(parents=True)
        for t in range(frames):
            image, labels = nuclei(100 * number + t, size)
            tifffile.imwrite(images / f"t{t:03d}.tif", image)
            if t % 2 == 0:
                tifffile.imwrite(truth / f"man_seg{t:03d}.tif", labels)
    return root
