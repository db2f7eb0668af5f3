"""A part of the objects table, gone through frame by frame, whatever its size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.geometry.layout import LabelLayout
from engine.store.tables import ROWS

Rows = dict[str, NDArray[Any]]
_COLUMNS = ("t", "z", "label", "area_px", "centroid_y_px", "centroid_x_px")


class PartRows:
    """Rows of a part, taken in order of their frames. A damaged file raises as pyarrow does."""

    def __init__(self, path: Path, layout: LabelLayout) -> None:
        self._layout = layout
        self._file = pq.ParquetFile(path)
        self._batches = self._file.iter_batches(batch_size=ROWS, columns=list(_COLUMNS))
        self._held: Rows | None = self._next()

    def take(self, t: int, z: int) -> Rows:
        """Rows of a frame; those before it that nobody asked for are dropped."""
        wanted = self._layout.frame_index(t, z)
        taken = []
        while self._held is not None:
            frame = self._held["frame"]
            taken.append({k: v[frame == wanted] for k, v in self._held.items()})
            if (frame > wanted).any():
                self._held = {k: v[frame > wanted] for k, v in self._held.items()}
                break
            self._held = self._next()
        if not taken:
            return {name: np.zeros(0) for name in (*_COLUMNS, "frame")}
        return {name: np.concatenate([one[name] for one in taken]) for name in taken[0]}

    @property
    def total(self) -> int:
        """Rows of the whole part."""
        return int(self._file.metadata.num_rows)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _next(self) -> Rows | None:
        for batch in self._batches:
            rows = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in _COLUMNS}
            t, z = rows["t"] - self._layout.t0, rows["z"] - self._layout.z0
            rows["frame"] = t * self._layout.sizes[1] + z
            return rows
        return None
