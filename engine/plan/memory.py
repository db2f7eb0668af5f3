"""What a job needs of memory, and the tiling and workers that fit into what there is.

    peak = base + model + workers x (activations of a tile + buffers of a frame + a block)

Nothing in it grows with the number of frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.errors import UsageError
from engine.geometry.arrays import (
    IMAGE,
    LABELS,
    PROBABILITY,
    ResultArray,
    level_layout,
    shard_bytes,
)
from engine.geometry.layout import LabelLayout
from engine.geometry.tiling import FrameTiling, Window, round_up
from engine.labels.postprocessing import Postprocessing
from engine.model.file import ModelFile
from engine.model.graph.memory import activation_bytes
from engine.plan.resources import parse_memory
from engine.stacks.base import StackInfo, window_shape

MB = 2**20
# Interpreter, NumPy, Dask, Zarr, Arrow, ONNX Runtime, and what allocators keep beyond what is
# counted below: with 320 MB a small job was once seen to take 509 MB of the 506 it was promised.
BASE = 335 * MB
FILE_COPIES = 3  # the file as read, the parsed graph, and its copy for shape inference
SESSION_COPIES = 2  # a session's weights, and their prepacked form; one session per pixel type
PIECE_PIXELS = 256  # px for each object and plane: what a row of blocks is planned for
PIECE_BYTES = 700  # that it takes while a row is stitched
CHANNEL_BYTES = 100  # that its intensities take of each channel
ROW_BYTES = 150  # of a row of pixels of an object that spans blocks, while its hull is found
PIECE_ROWS = 16  # rows of such an object in a plane
MEASURE_BYTES = 6  # of a pixel: sums of objects and the ends of their rows, while they are measured
WATERSHED_BYTES = 28  # of a pixel: places of the nearest background, distances, peaks
FACE_BYTES = 64  # of a pixel of a face: both sides, their contacts as keys, and a sorted copy
Planned = tuple[StackInfo, LabelLayout, Postprocessing, tuple[ResultArray, ...]]
# A compressed shard's share of its raw bytes, at the most.
ENCODED = {LABELS: 1 / 4, PROBABILITY: 1 / 2, IMAGE: 1.0}
USABLE = 0.8  # of the memory there is: the page cache and other processes want some too
TILES = (4096, 2048, 1024, 512, 256, 128)  # px, tried from the largest


def allowed_bytes(limit: str | None, there_is: int) -> int:
    """What a job may use: its `limit`, as "8GB", else most of what there is, in bytes."""
    return parse_memory(limit) if limit else int(there_is * USABLE)


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted peak of all processes of an in-process job, in bytes."""

    base: int
    model: int
    activations: int  # of one tile
    frame: int  # pixels, probabilities, labels, measures of one frame, or a block's part of it
    block: int  # labels of a block, and what is kept beside them
    stitch: int  # a stitch group being stitched, 0 where none is; after all blocks are segmented
    level: int  # a block of a level being made, after that
    workers: int

    @property
    def shared(self) -> int:
        """What is there once, however many blocks are in flight."""
        return self.base + self.model

    @property
    def per_worker(self) -> int:
        """What each block in flight adds."""
        return max(self.activations + self.frame + self.block, self.stitch, self.level)

    @property
    def peak(self) -> int:
        """The figure a job is held to."""
        return self.shared + self.workers * self.per_worker


@dataclass(frozen=True)
class TilingChoice:
    """How the frames of each stack go through the network, and by how many at a time."""

    tilings: tuple[FrameTiling, ...]
    workers: int
    threads: int
    memory: MemoryEstimate


def choose_tiling(
    stacks: Sequence[Planned],
    model: ModelFile,
    *,
    tile: int | None,
    halo: int | None,
    workers: int | None,
    cores: int,
    allowed: int,
) -> TilingChoice:
    """Whole frames or regions where they fit, else fewer at a time, else the largest tile.

    `tile` and `workers` are taken as given where they are not None. `halo` is None for a network
    that cannot be cut. `allowed`: bytes. Raises UsageError where nothing fits, with both numbers.
    """
    stride = model.spec.stride
    n_blocks = sum(layout.n_blocks for _, layout, _, _ in stacks)
    sides: list[int | None] = [tile] if tile else [None]
    if tile is None and halo is not None:
        sides += [t - t % stride for t in TILES if t - t % stride > 2 * halo]
    # More blocks in flight than there are blocks would only be memory on paper.
    wanted = max(min(workers or cores, n_blocks), 1)
    least = None
    for side in sides:
        tilings = tuple(_tiling(layout, stride, halo or 0, side) for _, layout, _, _ in stacks)
        one = estimate(stacks, tilings, model)
        fit = (allowed - one.shared) // one.per_worker
        count = wanted if workers else min(wanted, fit)
        if 0 < count <= fit:
            return TilingChoice(tilings, count, max(cores // count, 1), replace(one, workers=count))
        needed = one.shared + one.per_worker * (wanted if workers else 1)
        least = min(least or needed, needed)
    raise UsageError(
        f"the job needs {(least or 0) / MB:,.0f} MB at the least, and {allowed / MB:,.0f} MB "
        f"may be used; free some memory, give --memory {math.ceil((least or 0) / MB)}MB or more "
        "where there is that much, or fewer --workers"
    )


def _tiling(layout: LabelLayout, stride: int, halo: int, side: int | None) -> FrameTiling:
    """Tiles of `side` px; where it is None, one for each frame or region."""
    height, width = layout.sizes[2:]
    if side is None and layout.is_cut:
        # A region's edges need not lie on the stride: its tile reaches out to where they would.
        region = max(layout.block_size[2:])
        slack = 0 if all(size % stride == 0 for size in layout.block_size[2:]) else stride
        side = round_up(region, stride) + slack + 2 * halo
    return FrameTiling(height, width, stride, halo, side)


def estimate(
    stacks: Sequence[Planned],
    tilings: Sequence[FrameTiling],
    model: ModelFile,
) -> MemoryEstimate:
    """Predicted needs with one block in flight, by the most demanding stack."""
    n_in, n_out = len(model.spec.channels), model.spec.n_outputs
    graph = model.parse()
    tiles = {tiling.tile_shape for tiling in tilings}
    sessions = len({info.dtype for info, _, _, _ in stacks})
    return MemoryEstimate(
        base=BASE,
        model=len(model.data) * (FILE_COPIES + SESSION_COPIES * sessions),
        activations=max(activation_bytes(graph, *shape) for shape in tiles),
        frame=max(
            _frame_bytes(info, layout, tiling, postprocessing, n_in, n_out)
            for (info, layout, postprocessing, _), tiling in zip(stacks, tilings, strict=True)
        ),
        block=max(_block_bytes(layout, arrays) for _, layout, _, arrays in stacks),
        stitch=max(_stitch_bytes(layout, info.size("C")) for info, layout, _, _ in stacks),
        level=max(_level_bytes(layout, arrays) for _, layout, _, arrays in stacks),
        workers=1,
    )


def _frame_bytes(
    info: StackInfo,
    layout: LabelLayout,
    tiling: FrameTiling,
    postprocessing: Postprocessing,
    n_in: int,
    n_out: int,
) -> int:
    """What a block holds at once of a frame; of all its planes where labels connect along Z."""
    n_all = info.size("C")  # all are read and measured, whichever the network takes
    if layout.is_cut:
        block = layout.block(0)
        regions = (tiling.region(block.y, block.x), tiling.region(*_middle(layout)))
        rows = max(r.read_y.size for r in regions)
        columns = max(r.read_x.size for r in regions)
        pixels = layout.block_size[2] * layout.block_size[3]
        window = window_shape(info)  # of the survey, which goes through the frame first
        surveyed = info.read_bytes(*window, n_all) + math.prod(window) * n_in
    else:
        rows, columns = tiling.padded
        pixels, surveyed = rows * columns, 0
    read = info.read_bytes(min(rows, tiling.height), min(columns, tiling.width), n_all)
    taken = rows * columns * np.dtype(info.dtype).itemsize * n_in if n_in < n_all else 0
    padded = rows * columns * np.dtype(info.dtype).itemsize * n_in
    kept = layout.block_size[1] if layout.connect_z else 1  # planes labelled together
    probabilities = pixels * 4 * n_out * kept
    others = pixels * np.dtype(info.dtype).itemsize * n_all * (kept - 1)
    labels = pixels * (4 + 1 + MEASURE_BYTES) * kept  # and the mask they come from
    counted = pixels * 8  # NumPy counts 16-bit pixels as 64-bit indices
    cutting = pixels * WATERSHED_BYTES if postprocessing.instances == "watershed" else 0
    held = taken + probabilities + others + labels
    return max(read + padded + held + counted, read + held + cutting, surveyed)


def _middle(layout: LabelLayout) -> tuple[Window, Window]:
    """Region in the middle of a cut frame: it has a halo on every side."""
    _, _, rows, columns = layout.grid
    block = layout.block(layout.number((0, 0, rows // 2, columns // 2)))
    return block.y, block.x


def _block_bytes(layout: LabelLayout, arrays: tuple[ResultArray, ...]) -> int:
    sizes = {array.kind: shard_bytes(array, layout) for array in arrays}
    # All of a block, one of them once more while it is encoded, and all encoded.
    encoded = sum(int(size * ENCODED[kind]) for kind, size in sizes.items())
    return sum(sizes.values()) + max(sizes.values()) + encoded


def _level_bytes(layout: LabelLayout, arrays: tuple[ResultArray, ...]) -> int:
    """One shard of the level below, read and decoded, and the one that is filled from it."""
    above, needed = level_layout(layout, 1), [0]
    for array in (a for a in arrays if a.levels > 1):
        below, size = shard_bytes(array, layout), shard_bytes(array, above)
        share = 1 + ENCODED[array.kind]
        needed.append(int(max(below * share + size, size * (1 + share))))
    return max(needed)


def _stitch_bytes(layout: LabelLayout, n_channels: int) -> int:
    """A row of blocks with its pieces, the rows of objects that span blocks, a pair of faces."""
    if not layout.is_stitched:
        return 0
    t, planes, height, width = layout.block_size
    row = t * planes * height * layout.sizes[3]
    if layout.connect_z:  # where planes connect, nearly every object spans blocks: all are held
        row = t * math.prod(layout.sizes[1:])
    pieces = row // PIECE_PIXELS * (PIECE_BYTES + n_channels * CHANNEL_BYTES)
    _, depth, down, across = layout.grid
    spanning = row // PIECE_PIXELS
    if not layout.connect_z:  # those that lie on a line between regions
        lines = (down - 1) * layout.sizes[3] + (across - 1) * layout.sizes[2]
        spanning = lines // PIECE_ROWS
    elif depth * down * across == 1:
        spanning = 0
    pieces += spanning * PIECE_ROWS * ROW_BYTES
    face = t * max(
        planes * max(height, width), height * width if layout.connect_z else 0
    )  # fmt: skip
    return pieces + face * FACE_BYTES


@dataclass(frozen=True)
class Stored:
    """A stack whose kept probabilities are labelled anew."""

    info: StackInfo
    layout: LabelLayout
    tiling: FrameTiling
    postprocessing: Postprocessing
    arrays: tuple[ResultArray, ...]
    kept: tuple[ResultArray, ...]


def choose_workers(
    stacks: Sequence[Stored], wanted: int | None, cores: int, allowed: int
) -> tuple[int, MemoryEstimate]:
    """How many blocks of kept probabilities to label at a time. `allowed`: bytes.

    Raises UsageError where not even one fits.
    """
    one = MemoryEstimate(
        base=BASE,
        model=0,
        activations=0,
        # Read and decoded, beside what labelling takes.
        frame=max(
            _frame_bytes(s.info, s.layout, s.tiling, s.postprocessing, 1, 1)
            + sum(int(shard_bytes(a, s.layout) * (1 + ENCODED[a.kind])) for a in s.kept)
            for s in stacks
        ),
        block=max(_block_bytes(s.layout, s.arrays) for s in stacks),
        stitch=max(_stitch_bytes(s.layout, s.info.size("C")) for s in stacks),
        level=max(_level_bytes(s.layout, s.arrays) for s in stacks),
        workers=1,
    )
    n_blocks = sum(s.layout.n_blocks for s in stacks)
    fit = (allowed - one.shared) // one.per_worker
    count = max(min(wanted or cores, n_blocks), 1)
    count = count if wanted else min(count, fit)
    if not 0 < count <= fit:
        raise UsageError(
            f"labelling needs {one.peak / MB:,.0f} MB for one block in flight, and "
            f"{allowed / MB:,.0f} MB may be used; free some memory, or give --memory or --workers"
        )
    return count, replace(one, workers=count)
