"""Frames that benchmarks share: 700 x 1100 px with 300 nuclei, and what a network makes of them."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from engine.geometry.tiling import round_up
from engine.inference.tiles import pad_to
from engine.model.file import ModelFile
from engine.model.statistics import frame_statistics
from engine.runtimes.base import Target
from engine.runtimes.registry import open_session
from engine.synthetic import TimeLapse

SHAPE = (700, 1100)
KINDS = ("raw", "lzw")
Frame = NDArray[np.uint16]


def crowded(count: int, shape: tuple[int, int] = SHAPE) -> list[NDArray[np.uint16]]:
    """Frames with 390 nuclei a megapixel: 300 in the first one of SHAPE."""
    lapse = TimeLapse(shape=(count, *shape), seed=0, density=390, crowding=0.3)
    return [lapse.frame(t)[0] for t in range(count)]


def write(path: Path, frames: list[NDArray[Any]], count: int, kind: str = "raw") -> Path:
    """A TIFF of `count` pages that repeat `frames`; "lzw": in strips of 3 rows, as libtiff cuts."""
    options: dict[str, Any] = {"compression": "lzw", "rowsperstrip": 3} if kind == "lzw" else {}
    with tifffile.TiffWriter(path) as writer:
        for t in range(count):
            writer.write(
                frames[t % len(frames)], photometric="minisblack", contiguous=not options, **options
            )
    return path


class KnownNetwork:
    """A session that gives what a network gave before: what is left of a job is the rest."""

    def __init__(self, model: ModelFile, frames: list[NDArray[Any]], threads: int = 1) -> None:
        session = open_session(model, str(frames[0].dtype), Target("onnxruntime", "cpu"), threads)
        self.n_outputs = session.n_outputs
        height, width = (round_up(size, model.spec.stride) for size in frames[0].shape)
        self._known = {}
        for frame in frames:
            pixels = np.ascontiguousarray(pad_to(frame[None], (height, width)))[None]
            values = frame_statistics(frame[None], model.spec.normalisation)[None]
            self._known[self._key(pixels)] = session.run(pixels, values)

    @staticmethod
    def _key(pixels: NDArray[Any]) -> int:
        return zlib.crc32(pixels[0, 0, 0].tobytes())

    def run(
        self, pixels: NDArray[Any], statistics: Any, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """See `engine.runtimes.base.Session`."""
        known = self._known[self._key(pixels)]
        if out is None:
            return known
        out[...] = known
        return out
