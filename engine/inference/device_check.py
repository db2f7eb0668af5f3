"""Checks on real pixels, before a job: is the device right, and what does too small a halo cost?

Graph optimisations and TF32 have given wrong outputs of U-Nets on CUDA and on the CPU (ONNX
Runtime's issues 25963, 23797, 19288), without any error. A plan can't tell; one tile can.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError, OutOfMemory
from engine.geometry.tiling import FrameTiling, round_up
from engine.inference.tiles import pad_to, predict
from engine.labels.classes import class_map
from engine.model.file import ModelFile
from engine.runtimes.base import Caution, Precision, Session, Target
from engine.runtimes.registry import REFERENCE, open_session, runtime_of

# Of a probability. Orders of summation differ by about 1e-6 and CUDA's by 1e-5; wrong fusions
# were off by tenths.
TOLERANCE = 1e-3
# bfloat16 keeps 8 bits: up to 0.019 was measured on real frames (docs/runtimes.md). No processor
# with float16, which keeps 11, was at hand. A model in int8 is held against itself: runtimes round
# between its steps as they please; tests/export/test_lower.py holds them to this.
TOLERANCES: dict[Precision, float] = {"fp32": TOLERANCE, "bf16": 0.05, "fp16": 0.05, "int8": 0.07}

Open = Callable[..., Session]  # as `engine.runtimes.registry.open_session`


@dataclass(frozen=True)
class HaloError:
    """How a frame in tiles differs from the same frame in one piece."""

    max_probability: float  # greatest difference of a probability, 0..1; inf where not finite
    changed_fraction: float  # share of pixels that end in another class, 0..1


def real_tile(frame: NDArray[Any], stride: int, limit: int = 512) -> NDArray[Any]:
    """The middle of `frame`, (C, H, W), cut to at most `limit` px a side (but one stride at least).

    Its edges are multiples of `stride` in the frame; a frame that is smaller and no multiple is
    padded as in a job.
    """
    tile = frame[:, *(middle(length, stride, limit) for length in frame.shape[1:])]
    height, width = (round_up(length, stride) for length in tile.shape[1:])
    return np.ascontiguousarray(pad_to(tile, (height, width)))


def middle(length: int, stride: int, limit: int) -> slice:
    """At most `limit` px (but one stride at least) of an axis, from a multiple of `stride` on."""
    most = max(limit - limit % stride, stride)
    start = max(length - most, 0) // 2 // stride * stride
    return slice(start, min(start + most, length))


def least_caution(
    model: ModelFile,
    dtype: str,
    target: Target,
    tile: NDArray[Any],
    statistics: NDArray[np.float32],
    threads: int,
    fixes_shape: bool = False,
    open_session: Open = open_session,
) -> tuple[Caution, float]:
    """The least caution with which `target` gives the right probabilities of a real tile.

    `tile` (C, H, W) is of `dtype`, see `real_tile`; `statistics` (C, 2) are its frame's, and not
    those of a frame that a job would set aside (constant, or not finite). `fixes_shape`: the job's
    sessions are for one shape, and so is the one that is looked at. What is right is what
    `REFERENCE` gives. Returns the caution and the greatest difference of a probability with it, at
    most what `TOLERANCES` allow its precision; the reference is its own.

    Raises ModelError, with the numbers, where no caution suffices, or where the reference itself
    is not finite; OutOfMemory where the tile does not fit.
    """

    def run(target: Target) -> NDArray[np.float32]:
        shape = (1, *tile.shape[1:]) if fixes_shape and target != REFERENCE else None
        session = open_session(model, dtype, target, threads, shape=shape)
        result = session.run(tile[None], statistics[None])
        # What it keeps is not in the job's plan.
        runtime_of(target.runtime).release_memory()
        return result

    reference = run(REFERENCE)
    if not np.isfinite(reference).all():
        raise ModelError(
            f"{model.path}: gives probabilities that are not finite for a real tile, on the CPU "
            "and without optimisation; export it again, or look at the values of the first frame"
        )
    precision = model.spec.lowered.precision if model.spec.lowered else target.precision
    found, allowed = [], TOLERANCES[precision]
    for caution in runtime_of(target.runtime).cautions:
        tried = replace(target, caution=caution)
        if tried == REFERENCE:
            return caution, 0.0
        found.append(_difference(run(tried), reference))
        if found[-1] <= allowed:
            return caution, found[-1]
    first, *others = (f"{one:.3g}" if math.isfinite(one) else "an infinite amount" for one in found)
    careful = "".join(f", and without graph optimisation by {other}" for other in others)
    title = runtime_of(target.runtime).title
    other = (
        f"--runtime {REFERENCE.runtime}" if target.runtime != REFERENCE.runtime else "--device cpu"
    )
    raise ModelError(
        f"{model.path}: by {title} on {target.device} in {precision} its probabilities of a "
        f"real tile differ from the CPU's without optimisation by {first}{careful}, where "
        f"{allowed:g} is allowed; use {other}"
    )


def halo_error(
    frame: NDArray[Any],
    statistics: NDArray[np.float32],
    tiling: FrameTiling,
    session: Session,
    *,
    n_classes: int | None = None,
    threshold: float = 0.5,
    limit: int = 2048,
) -> HaloError:
    """What the tiles and the halo of `tiling` change in a real frame, (C, H, W).

    For a halo below what the network can see, or a network that cannot be tiled. `statistics`
    (C, 2) are the frame's, and `n_classes` how many of the outputs are for classes, by default
    all. A frame of more than `limit` px a side is cut to its middle, which goes through the network
    in one piece and in tiles; where the tile is so large that it would not be cut, half of it
    stands for the tile. Where the piece does not fit into memory, one of half the side is tried;
    OutOfMemory is raised where none fits.
    """
    if tiling.n_tiles == 1:
        return HaloError(0.0, 0.0)  # nothing is cut
    stride, halo = tiling.stride, tiling.halo
    smallest_tile = 2 * halo + stride
    limit = max(limit, 2 * smallest_tile)
    while True:
        piece = real_tile(frame, stride, limit)
        height, width = piece.shape[1:]
        half = round_up(max(height, width) // 2, stride)
        side = max(min(max(tiling.tile_shape), half), smallest_tile)
        try:
            whole, tiled = (
                predict(piece, statistics, FrameTiling(height, width, stride, halo, tile), session)
                for tile in (None, side)
            )
        except OutOfMemory:
            limit = min(limit, max(piece.shape[1:])) // 2
            if limit < 2 * smallest_tile:
                raise
        else:
            one, other = (class_map(p[:n_classes], threshold) for p in (whole, tiled))
            changed = one != other
            return HaloError(_difference(tiled, whole), float(changed.mean()))


def _difference(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Greatest absolute difference; infinite where anything is not finite, or of another shape."""
    if found.shape != wanted.shape:
        return math.inf
    apart = np.abs(found - wanted)
    return float(apart.max(initial=0.0)) if np.isfinite(apart).all() else math.inf
