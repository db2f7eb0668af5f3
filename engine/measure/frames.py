"""Measures of frames: what becomes their rows, added up over pixels, objects and regions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.labels.components import bands
from engine.measure.objects import ObjectSums

Measures = dict[str, float | int | None]  # columns of the frames table


class FrameSums:
    """What becomes a frame's row of measures, added up over its pixels and objects."""

    def __init__(self, pixels: int, intensity: float, channel: int = 0) -> None:
        self.pixels = pixels  # of the frame
        self.intensity = intensity  # sum over all of them, in the channel
        self._channel = channel  # of the stack, whose intensities the row tells
        self._areas = (np.zeros(0, np.int64), np.zeros(0, np.int64))  # which occur, how often
        self._inside = np.zeros(3)  # area, intensity and probability in objects
        self._touching = 0

    def add(self, sums: ObjectSums) -> None:
        """Add objects, each as a whole."""
        both = np.concatenate([self._areas[0], sums["area_px"]])
        often = np.concatenate([self._areas[1], np.ones(len(sums["area_px"]), np.int64)])
        areas, where = np.unique(both, return_inverse=True)
        counted = np.zeros(len(areas), np.int64)
        np.add.at(counted, where, often)
        self._areas = (areas, counted)
        intensity = f"sum_intensity_{self._channel}"
        for i, name in enumerate(("area_px", intensity, "sum_probability")):
            self._inside[i] += float(np.sum(sums[name]))
        self._touching += int(sums["touches_border"].sum())

    def row(self, pixel_area_um2: float | None) -> Measures:
        """The row; None where there is nothing."""
        inside, intensity, probability = (float(v) for v in self._inside)
        outside = self.pixels - inside
        row: Measures = {"objects": int(self._areas[1].sum())}
        summary = _summary(*self._areas)
        row.update({f"area_{name}_px": value for name, value in summary.items()})
        row.update(
            {
                f"area_{name}_um2": None
                if value is None or not pixel_area_um2
                else value * pixel_area_um2
                for name, value in summary.items()
            }
        )
        row["foreground_fraction"] = inside / self.pixels
        row["mean_intensity_objects"] = intensity / inside if inside else None
        row["mean_intensity_background"] = (
            (self.intensity - intensity) / outside if outside else None
        )
        row["mean_probability_objects"] = probability / inside if inside else None
        row["objects_touching_border"] = self._touching
        return row


def total_intensity(channel: NDArray[Any]) -> float:
    """Sum of all pixels; exact for integers."""
    return float(sum(float(np.sum(band, dtype=np.float64)) for band in bands(channel)))


class ClassSums:
    """What becomes a frame's row of measures of a class map, added up over its regions."""

    def __init__(self, n_classes: int) -> None:
        self.counts = np.zeros(n_classes, dtype=np.int64)
        self.intensities = np.zeros(n_classes)
        self.certainty = 0.0  # sum of the probability of the chosen class in the foreground

    def add(
        self, classes: NDArray[np.uint8], probability: NDArray[np.float32], channel: NDArray[Any]
    ) -> None:
        """Add a region: classes (Y, X) with 0 for background, probabilities (K, Y, X)."""
        n, top = len(self.counts), 0
        for band, pixels in zip(bands(classes), bands(channel), strict=True):
            flat = band.reshape(-1)
            self.counts += np.bincount(flat, minlength=n)
            self.intensities += np.bincount(flat, weights=pixels.reshape(-1), minlength=n)
            within = probability[:, top : top + len(band)]
            chosen = np.take_along_axis(within, band[None].astype(np.intp), axis=0)[0]
            self.certainty += float(np.sum(chosen[band > 0], dtype=np.float64))
            top += len(band)

    def merge(self, other: ClassSums) -> None:
        """Add what another region counted."""
        self.counts += other.counts
        self.intensities += other.intensities
        self.certainty += other.certainty

    def row(self, names: tuple[str, ...]) -> Measures:
        """The row, with the fraction of each class."""
        size = int(self.counts.sum())
        inside, outside = int(self.counts[1:].sum()), int(self.counts[0])
        row: Measures = {
            "foreground_fraction": inside / size,
            "mean_intensity_objects": float(self.intensities[1:].sum()) / inside
            if inside
            else None,
            "mean_intensity_background": float(self.intensities[0]) / outside if outside else None,
            "mean_probability_objects": self.certainty / inside if inside else None,
        }
        fractions = zip(names, self.counts, strict=True)
        row.update({f"fraction_{name}": int(count) / size for name, count in fractions})
        return row


def _summary(areas: NDArray[np.int64], often: NDArray[np.int64]) -> dict[str, float | None]:
    """Mean, median and quartiles of areas of which each occurs so often."""
    n = int(often.sum())
    if not n:
        return dict.fromkeys(("mean", "median", "q25", "q75"))
    below = np.cumsum(often)

    def quantile(q: float) -> float:
        # Linear between the two nearest ranks, as numpy.percentile does by default.
        place = q * (n - 1)
        lower = int(place)
        first = areas[np.searchsorted(below, lower, side="right")]
        second = areas[np.searchsorted(below, min(lower + 1, n - 1), side="right")]
        return float(first + (second - first) * (place - lower))

    mean = float(np.sum(areas * often)) / n
    return {"mean": mean, "median": quantile(0.5), "q25": quantile(0.25), "q75": quantile(0.75)}
