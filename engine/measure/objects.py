"""Measures of objects, in one vectorised pass over the foreground of a frame.

What is counted are sums (areas, moments, intensities) and extremes (boxes, intensities): they add
up, so that an object measured in pieces, one for each region that it spans, is measured as a whole.
Convex hulls do not add up; the ends of an object's rows do, and its hull follows from these
(`engine.measure.hulls`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.labels.components import BAND
from engine.labels.runs import Runs, runs_of_labels
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
    runs = runs_of_labels(labels)
    # Where there are as many as pixels, nearly, they are looked at by bands.
    parts = _by_band(runs) if runs.is_noise else [runs] * bool(len(runs))
    found, rows = [no_sums(pixels)], []
    for part in parts:
        sums, ends = _sums_by_band(part, pixels, probability, classes, origin)
        found.append(sums)
        rows.append(ends)
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


def _by_band(runs: Runs) -> list[Runs]:
    """The runs of each BAND rows that have any."""
    cuts = np.searchsorted(runs.row, np.arange(0, runs.shape[0] + BAND, BAND))
    return [runs.of(slice(a, b)) for a, b in itertools.pairwise(cuts.tolist()) if a < b]


def _sums_by_band(
    runs: Runs,
    channels: Mapping[int, NDArray[Any]],
    certainty: NDArray[np.float32],
    classes: NDArray[np.uint8] | None,
    origin: tuple[int, int],
) -> tuple[ObjectSums, RowEnds]:
    """`piece_sums` of each object in each band of rows: what its runs in there add up to.

    Sums of numbers that are rounded depend on their order: over a run, over an object's runs in a
    band of BAND rows, and then over bands.
    """
    assert runs.label is not None
    # By band, by label, and then as they lie.
    order = np.lexsort((runs.label, runs.row // BAND))
    label, length = runs.label[order].astype(np.int64), runs.length[order]
    y, x = runs.row[order] + origin[0], runs.column[order] + origin[1]
    new = np.ones(len(label), dtype=bool)
    new[1:] = (np.diff(label) != 0) | (np.diff(runs.row[order] // BAND) != 0)
    first = np.flatnonzero(new)
    number = np.cumsum(new) - 1  # of each run's object
    y0, y1 = y[first], y[np.r_[first[1:], len(y)] - 1] + 1
    x0 = np.minimum.reduceat(x, first)
    u, v, n = x - x0[number], y - y0[number], length
    along = n * u + n * (n - 1) // 2  # sum of x over a run
    summed = {
        "area_px": n, "sum_y": n * v, "sum_x": along, "sum_yy": n * v * v, "sum_yx": v * along,
        "sum_xx": n * u * u + u * n * (n - 1) + (n - 1) * n * (2 * n - 1) // 6,
    }  # fmt: skip
    sums: ObjectSums = {name: np.add.reduceat(values, first) for name, values in summed.items()}
    sums |= {name: sums[name].astype(np.float64) for name in _MOMENTS}
    begins = (runs.row[order[first]], runs.column[order[first]])
    sums |= {
        "label": label[first],
        "class": np.ones(len(first), np.int64) if classes is None else classes[begins].astype(int),
        "bbox_y0": y0, "bbox_x0": x0, "bbox_y1": y1,
        "bbox_x1": np.maximum.reduceat(x + n, first),
    }  # fmt: skip
    for name, (each, how) in _of_runs(runs, channels, certainty).items():
        sums[name] = how.reduceat(each[order], first).astype(np.float64)
    new[1:] |= np.diff(y) != 0  # a row of an object begins
    row = np.flatnonzero(new)
    last = np.r_[row[1:], len(y)] - 1
    ends = (y[row], x[row], x[last] + n[last] - 1)
    return sums, RowEnds(label[row], *(values.astype(np.int32) for values in ends))


def _of_runs(
    runs: Runs, channels: Mapping[int, NDArray[Any]], certainty: NDArray[np.float32]
) -> dict[str, tuple[NDArray[Any], np.ufunc]]:
    """What the pixels of each run add up to, (n,), by name; and how runs become objects.

    Pixels are gathered band by band.
    """
    found: dict[str, list[NDArray[Any]]] = {}
    how = {"sum_probability": np.add} | {
        f"{what}_intensity_{c}": ufunc for c in channels for what, ufunc in _INTENSITY.items()
    }
    for part in _by_band(runs):
        top = int(part.row[0])
        rows = slice(top, int(part.row[-1]) + 1)
        places = part.pixels() - top * runs.shape[1]
        starts = np.cumsum(part.length) - part.length
        sources = {"sum_probability": certainty[rows].reshape(-1)[places]}
        for c, channel in channels.items():
            values = channel[rows].reshape(-1)[places]
            sources |= {f"{what}_intensity_{c}": values for what in _INTENSITY}
        for name, values in sources.items():
            # Extremes are pixels: nothing is rounded.
            wide = np.float64 if how[name] is np.add else None
            found.setdefault(name, []).append(how[name].reduceat(values, starts, dtype=wide))
    return {name: (np.concatenate(each), how[name]) for name, each in found.items()}


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
