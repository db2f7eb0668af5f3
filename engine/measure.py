"""Measures of a frame and of its objects, in one vectorised pass over the foreground.

What is counted are sums (areas, first moments, intensities) and extremes (boxes): they add up, so
that an object measured in pieces, one for each region that it spans, is measured as a whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.labels.components import bands

FrameRow = dict[str, Any]
ObjectColumns = dict[str, NDArray[Any]]
ObjectSums = dict[str, NDArray[Any]]

OBJECT_DTYPES = {
    "label": np.uint64,
    "area_px": np.int64,
    "centroid_y_px": np.float64,
    "centroid_x_px": np.float64,
    "bbox_y0": np.int64,
    "bbox_x0": np.int64,
    "bbox_y1": np.int64,
    "bbox_x1": np.int64,
    "mean_intensity": np.float64,
    "mean_probability": np.float64,
    "touches_border": np.bool_,
}
# How the pieces of an object become one, for each of its sums.
_MERGE: dict[str, np.ufunc] = {
    "area_px": np.add,
    "sum_y": np.add,
    "sum_x": np.add,
    "sum_intensity": np.add,
    "sum_probability": np.add,
    "bbox_y0": np.minimum,
    "bbox_x0": np.minimum,
    "bbox_y1": np.maximum,
    "bbox_x1": np.maximum,
    "touches_border": np.logical_or,
}


def object_sums(
    labels: NDArray[np.uint32],
    channel: NDArray[Any],
    probability: NDArray[np.float32],
    *,
    origin: tuple[int, int] = (0, 0),
    frame_shape: tuple[int, int] | None = None,
) -> ObjectSums:
    """Sums and extremes of each object in a plane, or in a region of one, in order of label.

    `labels`, `channel` (raw pixels) and `probability` are all (Y, X); labels that do not occur
    are left out. `origin` is the region's first pixel in the frame, `frame_shape` the frame's.
    Coordinates are the frame's: they count from 0, and boxes are half-open.
    """
    count = int(labels.max(initial=0))
    height, width = frame_shape or labels.shape
    top, left = origin
    area = np.zeros(count + 1, dtype=np.int64)
    sums = np.zeros((4, count + 1))  # of y, x, intensity and probability
    low = np.full((2, count + 1), max(height, width), dtype=np.int64)
    high = np.zeros((2, count + 1), dtype=np.int64)
    for band, pixels, certainty in zip(
        bands(labels), bands(channel), bands(probability), strict=True
    ):
        y, x = np.nonzero(band)
        ids = band[y, x]
        values = (y + top, x + left, pixels[y, x], certainty[y, x])
        area += np.bincount(ids, minlength=count + 1)
        for total, weights in zip(sums, values, strict=True):
            total += np.bincount(ids, weights=weights, minlength=count + 1)
        for axis in (0, 1):
            np.minimum.at(low[axis], ids, values[axis])
            np.maximum.at(high[axis], ids, values[axis] + 1)
        top += len(band)
    there = np.flatnonzero(area)
    there = there[there > 0]
    y0, x0, y1, x1 = low[0, there], low[1, there], high[0, there], high[1, there]
    return {
        "label": there.astype(np.uint64),
        "area_px": area[there],
        "sum_y": sums[0, there],
        "sum_x": sums[1, there],
        "sum_intensity": sums[2, there],
        "sum_probability": sums[3, there],
        "bbox_y0": y0,
        "bbox_x0": x0,
        "bbox_y1": y1,
        "bbox_x1": x1,
        "touches_border": (y0 == 0) | (x0 == 0) | (y1 == height) | (x1 == width),
    }


def merged(sums: ObjectSums) -> ObjectSums:
    """One row for each label, in order, from pieces with labels in any order."""
    order = np.argsort(sums["label"], kind="stable")
    labels = sums["label"][order]
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]][: len(labels)])
    out: ObjectSums = {"label": labels[starts]}
    for name, how in _MERGE.items():
        values = sums[name][order]
        out[name] = how.reduceat(values, starts) if len(starts) else values
    return out


def objects_of(sums: ObjectSums) -> ObjectColumns:
    """The columns of the objects table. Centroids are means of pixel indices."""
    area = sums["area_px"]
    columns = {
        **sums,
        "centroid_y_px": sums["sum_y"] / area,
        "centroid_x_px": sums["sum_x"] / area,
        "mean_intensity": sums["sum_intensity"] / area,
        "mean_probability": sums["sum_probability"] / area,
    }
    return {name: columns[name].astype(dtype) for name, dtype in OBJECT_DTYPES.items()}


def measure_objects(
    labels: NDArray[np.uint32], channel: NDArray[Any], probability: NDArray[np.float32]
) -> ObjectColumns:
    """One value per object of a whole frame, in order of its id. See `object_sums`."""
    return objects_of(object_sums(labels, channel, probability))


class FrameSums:
    """What becomes a frame's row of measures, added up over its pixels and objects."""

    def __init__(self, pixels: int, intensity: float) -> None:
        self.pixels = pixels  # of the frame
        self.intensity = intensity  # sum over all of them
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
        for i, name in enumerate(("area_px", "sum_intensity", "sum_probability")):
            self._inside[i] += float(np.sum(sums[name]))
        self._touching += int(sums["touches_border"].sum())

    def row(self, pixel_area_um2: float | None) -> FrameRow:
        """The row; None where there is nothing."""
        inside, intensity, probability = (float(v) for v in self._inside)
        outside = self.pixels - inside
        row: FrameRow = {"objects": int(self._areas[1].sum())}
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

    def row(self, names: tuple[str, ...]) -> FrameRow:
        """The row, with the fraction of each class."""
        size = int(self.counts.sum())
        inside, outside = int(self.counts[1:].sum()), int(self.counts[0])
        row: FrameRow = {
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
