"""Measures of objects, from the runs of their pixels: one pass over labels, one over each channel.

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

from engine.compiled import compiled
from engine.labels.runs import runs_of
from engine.measure.hulls import RowEnds, convex_areas

ObjectColumns = dict[str, NDArray[Any]]  # of the objects table by name, (n,); see `object_dtypes`
ObjectSums = dict[str, NDArray[Any]]  # sums and extremes by name, (n,); see `_MERGE`
Int32s = NDArray[np.int32]
# Of each row of pixels of an object: its label, Y, and X of the leftmost and rightmost pixel.
RowArrays = tuple[NDArray[np.int64], Int32s, Int32s, Int32s]

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
    runs = runs_of(labels)
    at = runs.row, runs.start, runs.stop, runs.value
    label, first, shapes, certainty, rows = shapes_of(*at, labels.shape[1], probability)
    number = np.zeros(int(label[-1]) + 1 if len(label) else 1, np.int32)
    number[label] = np.arange(len(label))
    top, left = origin
    n, y0, x0, y1, x1 = shapes[:5]
    sums: ObjectSums = {
        "label": label, "area_px": n,
        "class": np.ones(len(n), np.int64)
        if classes is None
        else classes[np.divmod(first, labels.shape[1])].astype(np.int64),
        "bbox_y0": y0 + top, "bbox_x0": x0 + left, "bbox_y1": y1 + top, "bbox_x1": x1 + left,
        **dict(zip(_MOMENTS, shapes[5:].astype(np.float64), strict=True)),
        "sum_probability": certainty,
    }  # fmt: skip
    for c, channel in pixels.items():
        is_exact = channel.dtype.kind != "f" and channel.dtype.itemsize < 8
        zero = np.int64(0) if is_exact else np.float64(0)  # sums of 64-bit integers may overflow
        found = intensities_of(*at, number, len(label), channel, zero)
        sums |= {f"{what}_intensity_{c}": v for what, v in zip(_INTENSITY, found, strict=True)}
    y0, x0, y1, x1 = (sums[f"bbox_{name}"] for name in ("y0", "x0", "y1", "x1"))
    sums["touches_border"] = (y0 == 0) | (x0 == 0) | (y1 == height) | (x1 == width)
    owner, y, begin, end = rows
    ends = RowEnds(owner, y + np.int32(top), begin + np.int32(left), end + np.int32(left))
    return sums, ends


@compiled
def shapes_of(
    row: Int32s,
    start: Int32s,
    stop: Int32s,
    value: NDArray[np.uint32],
    width: int,
    probability: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], RowArrays]:
    """What the objects of a plane are without intensities, in order of label.

    The plane, (Y, X), is given by the runs of its labels. Labels (n,); flat index of the first
    pixel (n,); and (10, n): area, box, and the moments in the order of `_MOMENTS`; sum of the
    probability (n,). Of each row of an object, by object and row: label, Y, and X of the leftmost
    and the rightmost pixel.
    """
    size = np.int64(value.max()) + 1 if len(value) else 1
    first, last = np.full(size, -1), np.empty(size, np.int64)  # pixel; row in what follows
    first_y, first_x = np.empty(size, np.int64), np.empty(size, np.int64)
    zero = np.zeros(size, np.int64)
    n_rows, n, x0, y1, x1 = zero.copy(), zero.copy(), zero.copy(), zero.copy(), zero.copy()
    # From the first pixel of an object on: that is its first row, but not its first column.
    sy, sx, syy, sxx, syx = zero.copy(), zero.copy(), zero.copy(), zero.copy(), zero.copy()
    certainty = np.zeros(size)
    most = len(row)  # no fewer than rows of objects
    owner, at = np.empty(most, np.int64), np.empty(most, np.int32)
    left, right = np.empty(most, np.int32), np.empty(most, np.int32)
    count = 0
    for run in range(len(row)):
        label, y, begin, end = value[run], np.int64(row[run]), start[run], stop[run]
        if first[label] < 0:
            first[label], x0[label] = y * width + begin, begin
            first_y[label], first_x[label] = y, begin
        if n_rows[label] and at[last[label]] == y:
            right[last[label]] = end - 1
        else:
            owner[count], at[count], left[count], right[count] = label, y, begin, end - 1
            last[label] = count
            n_rows[label] += 1
            count += 1
        added = 0.0
        k = np.int64(end) - begin
        v, u = y - first_y[label], begin - first_x[label]
        along = k * u + k * (k - 1) // 2  # sum of x over the run
        for x in range(begin, end):
            added += probability[y, x]
        certainty[label] += added
        n[label] += k
        x0[label], x1[label] = min(x0[label], begin), max(x1[label], end)
        y1[label] = y + 1
        sy[label] += k * v
        sx[label] += along
        syy[label] += k * v * v
        sxx[label] += k * u * u + u * k * (k - 1) + (k - 1) * k * (2 * k - 1) // 6
        syx[label] += v * along
    label = np.flatnonzero(n)
    found = np.empty((10, len(label)), np.int64)
    for i in range(len(label)):
        j = label[i]
        # Moments from the first pixel of the box on.
        by = first_x[j] - x0[j]
        found[:, i] = (
            n[j], first_y[j], x0[j], y1[j], x1[j],
            sy[j], sx[j] + n[j] * by,
            syy[j], sxx[j] + 2 * by * sx[j] + n[j] * by * by, syx[j] + by * sy[j],
        )  # fmt: skip
    order = _by_object(owner[:count], n_rows)
    rows = owner[order], at[order], left[order], right[order]
    return label, first[label], found, certainty[label], rows


@compiled
def _by_object(owner: NDArray[np.int64], n_rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order of rows (n,) by the label that each is of, else as they lie; labels have `n_rows`."""
    place = np.cumsum(n_rows) - n_rows  # of the next row of each label
    order = np.empty(len(owner), np.int64)
    for i in range(len(owner)):
        order[place[owner[i]]] = i
        place[owner[i]] += 1
    return order


@compiled
def intensities_of(
    row: Int32s,
    start: Int32s,
    stop: Int32s,
    value: NDArray[np.uint32],
    number: Int32s,
    count: int,
    plane: NDArray[Any],
    zero: np.int64 | np.float64,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Sum, least and largest pixel of each of `count` objects of a plane, (Y, X), by their runs.

    `number` is the place of each label among them; `zero` has the type of their runs' sums. What is
    not a number makes all three so.
    """
    total, begun = np.zeros(count), np.zeros(count, np.bool_)
    least, most = np.empty(count, plane.dtype), np.empty(count, plane.dtype)
    for run in range(len(row)):
        y, begin = row[run], start[run]
        added = zero
        low = high = plane[y, begin]
        for x in range(begin, stop[run]):
            pixel = plane[y, x]
            added += pixel
            if pixel < low or pixel != pixel:
                low = pixel
            if pixel > high or pixel != pixel:
                high = pixel
        i = number[value[run]]
        if not begun[i]:
            begun[i], least[i], most[i] = True, low, high
        total[i] += added
        if low < least[i] or low != low:
            least[i] = low
        if high > most[i] or high != high:
            most[i] = high
    return total, least.astype(np.float64), most.astype(np.float64)


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
