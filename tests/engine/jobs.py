"""Small stacks and jobs, and what a job left behind as bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from scipy import ndimage

from engine.settings import JobSettings

TIMED = {"job.json", "timings.parquet"}  # files that tell times: they differ between runs


def blobs(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Smooth random uint16 images, (..., Y, X): half of each is foreground at 0.5."""
    rng = np.random.default_rng(seed)
    frames = rng.random((int(np.prod(shape[:-2], dtype=int)), *shape[-2:]))
    smooth = np.stack([ndimage.gaussian_filter(f, 3) for f in frames])
    smooth -= smooth.min(axis=(1, 2), keepdims=True)
    smooth *= 60000 / smooth.max(axis=(1, 2), keepdims=True)
    return smooth.reshape(shape).astype(np.uint16)


def write_stack(path: Path, data: np.ndarray, axes: str = "TYX") -> Path:
    tifffile.imwrite(path, data, metadata={"axes": axes}, photometric="minisblack")
    return path


def settings(inputs: Any, model: Path, output: Path, **changes: Any) -> JobSettings:
    paths = inputs if isinstance(inputs, list | tuple) else [inputs]
    return JobSettings(
        inputs=tuple(str(p) for p in paths), model=str(model), output=output, **changes
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a job's folder that must be the same bytes whoever ran it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in TIMED
        and "timings" not in path.parts
        and path.name != "lock"
    }
