"""Measures of a frame and of its objects, in one vectorised pass over the foreground."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.labels.components import bands

FrameRow = dict[str, Any]
ObjectColumns = dict[str, NDArray[Any]]

OBJECT_DTYPES = {
    "label": np.uint32,
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


def measure_objects(
    labels: NDArray[np.uint32], channel: NDArray[Any], probability: NDArray[np.float32]
) -> ObjectColumns:
    """One value per object, in order of its id.

    `labels`, `channel` (raw pixels) and `probability` are all (Y, X); ids run from 1 without
    gaps. Centroids are means of pixel indices; bounding boxes are half-open.
    """
    count = int(labels.max(initial=0))
    area = np.zeros(count + 1, dtype=np.int64)
    sums = np.zeros((4, count + 1))  # of y, x, intensity and probability
    top = 0
    for band, pixels, certainty in zip(
        bands(labels), bands(channel), bands(probability), strict=True
    ):
        y, x = np.nonzero(band)
        ids = band[y, x]
        area += np.bincount(ids, minlength=count + 1)
        for total, values in zip(sums, (y + top, x, pixels[y, x], certainty[y, x]), strict=True):
            total += np.bincount(ids, weights=values, minlength=count + 1)
        top += len(band)
    boxes = ndimage.find_objects(labels.view(np.int32))
    corners = np.array(
        [(y.start, x.start, y.stop, x.stop) for y, x in boxes], dtype=np.int64
    ).reshape(count, 4)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    touches = np.zeros(count + 1, dtype=bool)
    touches[edge] = True
    area, means = area[1:], sums[:, 1:] / area[1:]
    return {
        "label": np.arange(1, count + 1, dtype=np.uint32),
        "area_px": area,
        "centroid_y_px": means[0],
        "centroid_x_px": means[1],
        "bbox_y0": corners[:, 0],
        "bbox_x0": corners[:, 1],
        "bbox_y1": corners[:, 2],
        "bbox_x1": corners[:, 3],
        "mean_intensity": means[2],
        "mean_probability": means[3],
        "touches_border": touches[1:],
    }


def measure_frame(
    objects: ObjectColumns, channel: NDArray[Any], pixel_area_um2: float | None
) -> FrameRow:
    """The frame's row of measures from those of its objects; None where there is nothing."""
    area = objects["area_px"]
    inside = int(area.sum())
    outside = channel.size - inside
    intensity = float(np.sum(objects["mean_intensity"] * area))
    probability = float(np.sum(objects["mean_probability"] * area))
    row: FrameRow = {"objects": len(area)}
    summary = _summary(area)
    row.update({f"area_{name}_px": value for name, value in summary.items()})
    row.update(
        {
            f"area_{name}_um2": None
            if value is None or not pixel_area_um2
            else value * pixel_area_um2
            for name, value in summary.items()
        }
    )
    total = float(np.sum(channel, dtype=np.float64))
    row["foreground_fraction"] = inside / channel.size
    row["mean_intensity_objects"] = intensity / inside if inside else None
    row["mean_intensity_background"] = (total - intensity) / outside if outside else None
    row["mean_probability_objects"] = probability / inside if inside else None
    row["objects_touching_border"] = int(objects["touches_border"].sum())
    return row


def measure_classes(
    classes: NDArray[np.uint8],
    probability: NDArray[np.float32],
    channel: NDArray[Any],
    names: tuple[str, ...],
) -> FrameRow:
    """The frame's row of measures of a class map: (Y, X), 0 is background.

    `probability`, (K, Y, X), gives the mean probability of the chosen class in the foreground.
    """
    counts = np.zeros(len(names), dtype=np.int64)
    totals = np.zeros(len(names))
    certain, top = 0.0, 0
    for band, pixels in zip(bands(classes), bands(channel), strict=True):
        flat = band.reshape(-1)
        counts += np.bincount(flat, minlength=len(names))
        totals += np.bincount(flat, weights=pixels.reshape(-1), minlength=len(names))
        within = probability[:, top : top + len(band)]
        chosen = np.take_along_axis(within, band[None].astype(np.intp), axis=0)[0]
        certain += float(np.sum(chosen[band > 0], dtype=np.float64))
        top += len(band)
    inside, outside = int(counts[1:].sum()), int(counts[0])
    row: FrameRow = {
        "foreground_fraction": inside / classes.size,
        "mean_intensity_objects": float(totals[1:].sum()) / inside if inside else None,
        "mean_intensity_background": float(totals[0]) / outside if outside else None,
        "mean_probability_objects": certain / inside if inside else None,
    }
    row.update({f"fraction_{n}": int(c) / classes.size for n, c in zip(names, counts, strict=True)})
    return row


def _summary(area: NDArray[Any]) -> dict[str, float | None]:
    if not len(area):
        return dict.fromkeys(("mean", "median", "q25", "q75"))
    q25, median, q75 = (float(v) for v in np.percentile(area, (25, 50, 75)))
    return {"mean": float(area.mean()), "median": median, "q25": q25, "q75": q75}
