"""Measures of objects, in one vectorised pass over the foreground of a frame.

What is counted are sums (areas, moments, intensities) and extremes (boxes, intensities): they add
up, so that an object measured in pieces, one for each region that it spans, is measured as a whole.
Convex hulls do not add up; the ends of an object's rows do, and its hull follows from these
(`engine.measure.hulls`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.labels.components import bands
from engine.measure.hulls import RowEnds, convex_areas, merged_rows

ObjectColumns = dict[str, NDArray[Any]]
ObjectSums = dict[str, NDArray[Any]]

_DTYPES: dict[str, Any] = {
    "label": np.uint64,
    "class": np.uint8,
    "area_px": np.int64,
    "centroid_y_px": np.float64,
    "centroid_x_px": np.float64,
    "bbox_y0": np.int64,
    "bbox_x0": np.int64,
    "bbox_y1": np.int64,
    "bbox_x1": np.int64,
    "eccentricity": np.float64,
    "solidity": np.float64,
    "mean_probability": np.float64,
    "touches_border": np.bool_,
}
# Sums of y, x and their products count from the first pixel of the object's box: numbers stay
# small, so that second moments lose no digits far from the frame's corner.
_MOMENTS = ("sum_y", "sum_x", "sum_yy", "sum_xx", "sum_yx")
# How the pieces of an object become one, for each of its sums.
_MERGE: dict[str, np.ufunc] = {
    "class": np.minimum,  # the same of all pieces
    "area_px": np.add,
    **dict.fromkeys(_MOMENTS, np.add),
    "sum_probability": np.add,
    "bbox_y0": np.minimum,
    "bbox_x0": np.minimum,
    "bbox_y1": np.maximum,
    "bbox_x1": np.maximum,
    "touches_border": np.logical_or,
}
_INTENSITY: dict[str, np.ufunc] = {"sum": np.add, "min": np.minimum, "max": np.maximum}


@dataclass(frozen=True)
class ObjectsOf:
    """What the objects table holds of a stack besides the columns of its objects."""

    stack: str  # its name
    class_names: tuple[str, ...]  # of the model, by number: each object is of one
    pixel_size_um: tuple[float, float] | None  # along Y and X
    channels: tuple[int, ...]  # of the stack, ascending, whose intensities have columns


def object_dtypes(channels: Iterable[int]) -> dict[str, Any]:
    """Columns of `ObjectColumns` where these channels are measured, in order, with their types."""
    each = [f"{what}_intensity_{c}" for c in channels for what in ("mean", *_INTENSITY)]
    return {**_DTYPES, **dict.fromkeys(each, np.float64)}


def channels_of(columns: Iterable[str]) -> list[int]:
    """Numbers of the channels that were measured, by the names of the columns."""
    prefix = "sum_intensity_"
    return [int(name.removeprefix(prefix)) for name in columns if name.startswith(prefix)]


def piece_sums(
    labels: NDArray[np.uint32],
    pixels: Mapping[int, NDArray[Any]],
    probability: NDArray[np.float32],
    classes: NDArray[np.uint8] | None = None,
    *,
    origin: tuple[int, int] = (0, 0),
    frame_shape: tuple[int, int] | None = None,
) -> tuple[ObjectSums, RowEnds]:
    """Sums and extremes of each object in a region of a plane, in order of label; and its rows.

    `labels` and `probability` are (Y, X); `pixels` are raw, (Y, X), by the number of their channel
    in the stack. `classes` is the class map, (Y, X), in which every object is of one class; None:
    all are of class 1. Labels that do not occur are left out. `origin` is the region's first pixel
    in the frame, `frame_shape` the frame's. Coordinates are the frame's: they count from 0, and
    boxes are half-open. The rows give "convex_px", which `objects_of` needs as well, once they are
    those of whole objects.
    """
    height, width = frame_shape or labels.shape
    found, rows = [no_sums(pixels)], []
    top = origin[0]
    by_band = zip(bands(labels), *(bands(channel) for channel in pixels.values()), strict=True)
    for (band, *channels), certainty in zip(by_band, bands(probability), strict=True):
        if band.any():
            by_number = dict(zip(pixels, channels, strict=True))
            of_band = None if classes is None else classes[top - origin[0] :][: len(band)]
            sums, ends = _band_sums(band, by_number, certainty, of_band, (top, origin[1]))
            found.append(sums)
            rows.append(ends)
        top += len(band)
    whole = merged({name: np.concatenate([f[name] for f in found]) for name in found[-1]})
    y0, x0, y1, x1 = (whole[f"bbox_{name}"] for name in ("y0", "x0", "y1", "x1"))
    whole["touches_border"] = (y0 == 0) | (x0 == 0) | (y1 == height) | (x1 == width)
    return whole, merged_rows(rows)


def object_sums(
    labels: NDArray[np.uint32],
    pixels: Mapping[int, NDArray[Any]],
    probability: NDArray[np.float32],
    classes: NDArray[np.uint8] | None = None,
) -> ObjectSums:
    """Sums and extremes of each object of a whole frame. See `piece_sums`."""
    sums, rows = piece_sums(labels, pixels, probability, classes)
    return {**sums, "convex_px": convex_areas(rows)}


def no_sums(channels: Iterable[int]) -> ObjectSums:
    """The sums of no objects, as `piece_sums` begins with them."""
    floats = ("sum_probability", *_MOMENTS)
    each = [f"{what}_intensity_{c}" for c in channels for what in _INTENSITY]
    ints = ("label", "class", "area_px", "bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1", "convex_px")
    return {
        **{name: np.zeros(0, np.int64) for name in ints},
        **{name: np.zeros(0) for name in (*floats, *each)},
        "touches_border": np.zeros(0, dtype=bool),
    }


def _band_sums(
    band: NDArray[np.uint32],
    channels: Mapping[int, NDArray[Any]],
    certainty: NDArray[np.float32],
    classes: NDArray[np.uint8] | None,
    origin: tuple[int, int],
) -> tuple[ObjectSums, RowEnds]:
    """`piece_sums` of some rows: runs of equal labels along them, then what runs add up to."""
    where = band > 0
    begins = where.copy()
    begins[:, 1:] &= band[:, 1:] != band[:, :-1]
    starts = np.flatnonzero(begins[where])  # of runs, counted in foreground
    length = np.diff(np.r_[starts, np.count_nonzero(where)])
    label = band[begins].astype(np.int64)
    order = np.argsort(label, kind="stable")  # by label, and then as they lie
    label, length = label[order], length[order]
    y, x = (place[order] + start for place, start in zip(np.nonzero(begins), origin, strict=True))
    new = np.ones(len(label), dtype=bool)
    new[1:] = np.diff(label) != 0
    first = np.flatnonzero(new)
    number = np.cumsum(new) - 1  # of each run's object
    y0, y1 = y[first], y[np.r_[first[1:], len(y)] - 1] + 1
    x0 = np.minimum.reduceat(x, first)
    u, v, n = x - x0[number], y - y0[number], length
    along = n * u + n * (n - 1) // 2  # sum of x over a run
    runs = {
        "area_px": n, "sum_y": n * v, "sum_x": along, "sum_yy": n * v * v, "sum_yx": v * along,
        "sum_xx": n * u * u + u * n * (n - 1) + (n - 1) * n * (2 * n - 1) // 6,
    }  # fmt: skip
    sums: ObjectSums = {name: np.add.reduceat(values, first) for name, values in runs.items()}
    sums |= {name: sums[name].astype(np.float64) for name in _MOMENTS}

    def over(values: NDArray[Any], how: np.ufunc) -> NDArray[np.float64]:
        each = how.reduceat(values, starts, dtype=np.float64)
        summed: NDArray[np.float64] = how.reduceat(each[order], first)
        return summed

    of = np.ones(len(label)) if classes is None else classes[begins][order]
    sums |= {
        "label": label[first], "class": of[first].astype(np.int64),
        "sum_probability": over(certainty[where], np.add),
        "bbox_y0": y0, "bbox_x0": x0, "bbox_y1": y1,
        "bbox_x1": np.maximum.reduceat(x + n, first),
    }  # fmt: skip
    for c, channel in channels.items():
        values = channel[where]
        sums |= {f"{what}_intensity_{c}": over(values, how) for what, how in _INTENSITY.items()}
    new[1:] |= np.diff(y) != 0  # a row of an object begins
    row = np.flatnonzero(new)
    last = np.r_[row[1:], len(y)] - 1
    ends = (y[row], x[row], x[last] + n[last] - 1)
    return sums, RowEnds(label[row], *(values.astype(np.int32) for values in ends))


def merged(sums: ObjectSums) -> ObjectSums:
    """One row for each label, in order, from pieces with labels in any order."""
    order = np.argsort(sums["label"], kind="stable")
    labels = sums["label"][order]
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]][: len(labels)])
    out: ObjectSums = {"label": labels[starts]}
    if not len(starts):
        return {name: sums[name] for name in ("label", *_known(sums))}
    pieces = {name: sums[name][order] for name in _known(sums)}
    pieces |= _moved(pieces, starts)
    for name, how in _known(sums).items():
        out[name] = how.reduceat(pieces[name], starts)
    return out


def _known(sums: ObjectSums) -> dict[str, np.ufunc]:
    """How each of some sums is merged."""
    found = {name: how for name, how in _MERGE.items() if name in sums}
    for c in channels_of(sums):
        found |= {f"{what}_intensity_{c}": how for what, how in _INTENSITY.items()}
    return found


def _moved(pieces: ObjectSums, starts: NDArray[np.int64]) -> ObjectSums:
    """The moments of pieces, counted from the first pixel of the box that they have together."""
    often = np.diff(np.r_[starts, len(pieces["area_px"])])
    n = pieces["area_px"].astype(np.float64)
    y, x, yy, xx, yx = (pieces[name] for name in _MOMENTS)
    dy, dx = (
        (pieces[name] - np.repeat(np.minimum.reduceat(pieces[name], starts), often)).astype(float)
        for name in ("bbox_y0", "bbox_x0")
    )
    return {
        "sum_y": y + n * dy,
        "sum_x": x + n * dx,
        "sum_yy": yy + 2 * dy * y + n * dy * dy,
        "sum_xx": xx + 2 * dx * x + n * dx * dx,
        "sum_yx": yx + dy * x + dx * y + n * dy * dx,
    }


def objects_of(sums: ObjectSums) -> ObjectColumns:
    """The columns of the objects table that follow from pixels alone.

    Centroids are means of pixel indices. Eccentricity and solidity are those of scikit-image's
    `regionprops`, in the grid of pixels.
    """
    area = sums["area_px"]
    columns = {
        **sums,
        "centroid_y_px": sums["bbox_y0"] + sums["sum_y"] / area,
        "centroid_x_px": sums["bbox_x0"] + sums["sum_x"] / area,
        "eccentricity": _eccentricity(sums),
        "solidity": area / sums["convex_px"],
        "mean_probability": sums["sum_probability"] / area,
    }
    channels = channels_of(sums)
    for c in channels:
        columns[f"mean_intensity_{c}"] = sums[f"sum_intensity_{c}"] / area
    return {name: columns[name].astype(dtype) for name, dtype in object_dtypes(channels).items()}


def _eccentricity(sums: ObjectSums) -> NDArray[np.float64]:
    """Of the ellipse with the same second central moments, 0..1; 0 for a pixel."""
    n = sums["area_px"].astype(np.float64)
    y, x, yy, xx, yx = (sums[name] for name in _MOMENTS)
    # Times the area squared: whole numbers, and exact for all but giant objects.
    down, across, both = n * yy - y * y, n * xx - x * x, n * yx - y * x
    spread = down + across  # of the eigenvalues, the sum; and their difference
    difference = np.hypot(down - across, 2 * both)
    squared = np.divide(2 * difference, spread + difference, out=0 * n, where=spread > 0)
    found: NDArray[np.float64] = np.sqrt(np.minimum(squared, 1.0))
    return found
