"""Measures of frames: sums over pixels, objects and regions, and the rows that follow."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.compiled import compiled
from engine.labels.components import bands
from engine.measure.objects import ObjectSums

Measures = dict[str, float | int | None]  # columns of the frames table


class FrameSums:
    """A frame's row of measures, summed over its pixels and objects."""

    def __init__(self, pixels: int, intensity: float, channel: int = 0) -> None:
        self.pixels = pixels  # of the frame
        self.intensity = intensity  # sum over all of them, in the channel
        self._channel = channel  # of the stack, whose intensities the row has
        self._areas: Counter[int] = Counter()  # how often each area occurs
        self._inside = np.zeros(3)  # area, intensity and probability in objects
        self._touching = 0

    def add(self, sums: ObjectSums) -> None:
        """Add objects, each as a whole."""
        areas, often = np.unique(sums["area_px"], return_counts=True)
        self._areas.update(dict(zip(areas.tolist(), often.tolist(), strict=True)))
        for i, name in enumerate(("area_px", f"sum_intensity_{self._channel}", "sum_probability")):
            self._inside[i] += float(np.sum(sums[name]))
        self._touching += int(sums["touches_border"].sum())

    def row(self, pixel_area_um2: float | None) -> Measures:
        """The row; a value is None where there is nothing to take it of."""
        inside, intensity, probability = (float(v) for v in self._inside)
        outside = self.pixels - inside
        row: Measures = {"objects": self._areas.total()}
        summary = _summary(self._areas)
        row |= {f"area_{name}_px": value for name, value in summary.items()}
        row |= {
            f"area_{name}_um2": value * pixel_area_um2 if value and pixel_area_um2 else None
            for name, value in summary.items()
        }
        row["foreground_fraction"] = inside / self.pixels
        row["mean_intensity_objects"] = _ratio(intensity, inside)
        row["mean_intensity_background"] = _ratio(self.intensity - intensity, outside)
        row["mean_probability_objects"] = _ratio(probability, inside)
        row["objects_touching_border"] = self._touching
        return row


def total_intensity(channel: NDArray[Any]) -> float:
    """Sum of all pixels, (Y, X); exact for integers up to 2^53."""
    if channel.dtype.kind == "u" and channel.dtype.itemsize <= 4 and channel.flags.c_contiguous:
        return float(_total(channel.reshape(-1)))
    return float(sum(float(np.sum(band, dtype=np.float64)) for band in bands(channel)))


@compiled
def _total(pixels: NDArray[Any]) -> np.uint64:
    """The sum of unsigned integers, (n,); NumPy would make numbers of 64 bits of them first."""
    total = np.uint64(0)
    for i in range(len(pixels)):
        total += np.uint64(pixels[i])
    return total


class ClassSums:
    """A frame's row of measures of a class map, summed over its regions."""

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
        size, outside = int(self.counts.sum()), int(self.counts[0])
        inside = size - outside
        row: Measures = {
            "foreground_fraction": inside / size,
            "mean_intensity_objects": _ratio(float(self.intensities[1:].sum()), inside),
            "mean_intensity_background": _ratio(float(self.intensities[0]), outside),
            "mean_probability_objects": _ratio(self.certainty, inside),
        }
        fractions = zip(names, self.counts, strict=True)
        return row | {f"fraction_{name}": int(count) / size for name, count in fractions}


def _ratio(total: float, count: float) -> float | None:
    return total / count if count else None


def _summary(counts: Counter[int]) -> dict[str, float | None]:
    """Mean, median and quartiles of areas, by how often each occurs."""
    n = counts.total()
    if not n:
        return dict.fromkeys(("mean", "median", "q25", "q75"))
    areas, often = np.array(sorted(counts.items()), dtype=np.int64).T
    below = np.cumsum(often)

    def quantile(q: float) -> float:
        # Linear between the two nearest ranks, as numpy.percentile does by default.
        lower, part = divmod(q * (n - 1), 1)
        first, second = areas[np.searchsorted(below, (lower, min(lower + 1, n - 1)), side="right")]
        return float(first + (second - first) * part)

    mean = float(np.sum(areas * often)) / n
    return {"mean": mean, "median": quantile(0.5), "q25": quantile(0.25), "q75": quantile(0.75)}
