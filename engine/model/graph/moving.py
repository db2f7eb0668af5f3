"""Operators that move pixels along Y and X: sliding windows, resizing, padding, slicing."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from engine.model.graph.operator import POINT, Along, NoReach, Operator

# Resize grids on which an output pixel's place does not depend on the size of the image.
ALIGNED_GRIDS = frozenset(["half_pixel", "pytorch_half_pixel", "asymmetric"])
TO_THE_END = 2**31 - 1  # how exporters write "until the last"; int64's maximum is above it


def sliding(op: Operator) -> tuple[Along, Along]:
    """Convolution and pooling."""
    if op.kind == "MaxPool" and len(op.node.output) > 1 and op.node.output[1]:
        raise NoReach("MaxPool gives positions in the whole frame")
    strides, dilations = _spacing(op)
    pads, policy = op.attribute("pads", (0, 0, 0, 0)), op.attribute("auto_pad", "NOTSET")
    ceil_mode = bool(op.attribute("ceil_mode", 0))

    def along(axis: int, kernel: int) -> Along:
        stride, extent = strides[axis], (kernel - 1) * dilations[axis]
        if policy in ("SAME_UPPER", "SAME_LOWER"):
            both = max(extent + 1 - stride, 0)  # of an input in whole strides
            before = both // 2 if policy == "SAME_UPPER" else both - both // 2
            after = both - before
        else:
            before, after = (pads[axis], pads[axis + 2]) if policy == "NOTSET" else (0, 0)

        def length(n: int) -> int:
            rest = n + before + after - extent - 1
            if (ceil_mode and rest % stride) or (policy.startswith("SAME") and n % stride):
                raise NoReach(f"{op.kind} pads by the size of its input")
            return rest // stride + 1

        return Along(
            Fraction(stride),
            lambda i: i * stride - before,
            lambda i: i * stride - before + extent,
            length,
        )

    kernel = _kernel(op)
    return along(0, kernel[0]), along(1, kernel[1])


def transposed(op: Operator) -> tuple[Along, Along]:
    """Transposed convolution."""
    if op.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or op.attribute(
        "output_shape", None
    ):
        raise NoReach("ConvTranspose pads by the size of its output")
    strides, dilations = _spacing(op)
    pads, extra = op.attribute("pads", (0, 0, 0, 0)), op.pair("output_padding", 0)

    def along(axis: int, kernel: int) -> Along:
        stride, extent = strides[axis], (kernel - 1) * dilations[axis]
        before, after = pads[axis], pads[axis + 2]
        return Along(
            Fraction(1, stride),
            lambda i: -((extent - i - before) // stride),
            lambda i: (i + before) // stride,
            lambda n: stride * (n - 1) + extra[axis] + extent + 1 - before - after,
        )

    kernel = _kernel(op)
    return along(0, kernel[0]), along(1, kernel[1])


def _spacing(op: Operator) -> tuple[tuple[int, int], tuple[int, int]]:
    strides, dilations = op.pair("strides", 1), op.pair("dilations", 1)
    if min(*strides, *dilations) < 1:
        raise NoReach(f"{op.kind} has a stride or dilation below 1")
    return strides, dilations


def _kernel(op: Operator) -> tuple[int, int]:
    given = op.attribute("kernel_shape", None) or op.shapes.get(op.input(1), ())[2:]
    if len(given) != 2:
        raise NoReach(f"{op.kind} has a kernel that is computed, or not of two axes")
    return given[0], given[1]


def resize(op: Operator) -> tuple[Along, Along]:
    """Resize by a constant scale."""
    mode = op.attribute("mode", "nearest")
    grid = op.attribute("coordinate_transformation_mode", "half_pixel")
    if mode not in ("nearest", "linear") or grid not in ALIGNED_GRIDS:
        raise NoReach(f"Resize ({mode}, {grid}) depends on the size of the whole frame")
    scales = op.constants.get(op.input(2))
    if op.opset < 11 or scales is None or len(scales) != 4 or op.attribute("axes", None):
        raise NoReach("Resize has a size that is computed or fixed, and no constant scale")
    if op.attribute("antialias", 0) or any(scales[:2] != 1):
        raise NoReach("Resize with antialias, or along the channels, is not understood")
    if any(not math.isfinite(s) or s <= 0 for s in scales):
        raise NoReach("Resize has a scale that is none")
    rounding = op.attribute("nearest_mode", "round_prefer_floor")

    def along(scale: Fraction) -> Along:
        # Only where the runtime's float32 coordinates are exact do they not depend on the place.
        ends = {scale.numerator, scale.denominator}
        exact = 1 in ends and (mode == "nearest" or all(e & (e - 1) == 0 for e in ends))
        if not exact or (grid == "pytorch_half_pixel" and scale < 1):
            raise NoReach(f"Resize ({mode}) by {float(scale):g} depends on the place in the frame")
        offset = Fraction(0) if grid == "asymmetric" else Fraction(1, 2)

        def place(index: int) -> Fraction:
            return (index + offset) / scale - offset

        def nearest(index: int) -> int:
            return _round(place(index), rounding)

        linear = mode == "linear"
        return Along(
            1 / scale,
            (lambda i: math.floor(place(i))) if linear else nearest,
            (lambda i: math.ceil(place(i))) if linear else nearest,
            lambda n: math.floor(n * scale),
        )

    y, x = (Fraction(float(s)) for s in scales[2:])
    return along(_simple(y)), along(_simple(x))


def _simple(scale: Fraction) -> Fraction:
    """One over an integer, where float32 can't hold it."""
    simple = scale.limit_denominator(64)
    return simple if np.float32(float(simple)) == np.float32(float(scale)) else scale


def _round(place: Fraction, mode: str) -> int:
    if mode == "round_prefer_floor":
        return math.ceil(place - Fraction(1, 2))
    if mode == "round_prefer_ceil":
        return math.floor(place + Fraction(1, 2))
    return math.ceil(place) if mode == "ceil" else math.floor(place)


def _block_size(op: Operator) -> int:
    size = int(op.attribute("blocksize", 0))
    if size < 1:
        raise NoReach(f"{op.kind} has no blocksize")
    return size


def depth_to_space(op: Operator) -> tuple[Along, Along]:
    """Channels become blocks of pixels."""
    b = _block_size(op)
    both = Along(Fraction(1, b), lambda i: i // b, lambda i: i // b, lambda n: n * b)
    return both, both


def space_to_depth(op: Operator) -> tuple[Along, Along]:
    """Blocks of pixels become channels."""
    b = _block_size(op)
    both = Along(Fraction(b), lambda i: i * b, lambda i: i * b + b - 1, lambda n: n // b)
    return both, both


def pad(op: Operator) -> tuple[Along, Along]:
    """Padding, but not around the frame."""
    if (mode := op.attribute("mode", "constant")) not in ("constant", "reflect", "edge"):
        raise NoReach(f"Pad ({mode}) depends on the size of the whole frame")
    pads = op.integers(1, "pads") or []
    axes = [a % 4 for a in (op.integers(3, "axes") or range(len(pads) // 2))]
    if len(pads) != 2 * len(axes):
        raise NoReach("Pad does not say how much for each axis")
    before = dict(zip(axes, pads[: len(axes)], strict=True))
    after = dict(zip(axes, pads[len(axes) :], strict=True))

    def along(axis: int) -> Along:
        first, last = before.get(axis, 0), after.get(axis, 0)
        place = lambda i: i - first  # noqa: E731
        mirrors = mode != "constant"
        return Along(Fraction(1), place, place, lambda n: n + first + last, mirrors)

    return along(2), along(3)


def slice(op: Operator) -> tuple[Along, Along]:
    """Cutting at the start or the end, and strided."""
    starts, ends = op.integers(1, "starts") or [], op.integers(2, "ends") or []
    axes = [a % 4 for a in (op.integers(3, "axes") or range(len(starts)))]
    steps = op.integers(4, "steps") or [1] * len(starts)
    found = {2: POINT, 3: POINT}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if axis == 0:
            raise NoReach("Slice cuts the batch")
        if axis > 1:
            found[axis] = _sliced(start, end, step)
    return found[2], found[3]


def _sliced(start: int, end: int, step: int) -> Along:
    if start < 0 or step < 1 or 0 <= end < TO_THE_END:
        raise NoReach("Slice depends on the size of the whole frame")
    cut = -end if end < 0 else 0

    def place(index: int) -> int:
        return start + index * step

    return Along(Fraction(step), place, place, lambda n: -((start + cut - n) // step))
