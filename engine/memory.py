"""What a job needs of memory, and the tiling and workers that fit into what there is.

    peak = base + runtime + workers x (activations of a tile + buffers of a frame + a block)

Nothing in it grows with the number of frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.errors import UsageError
from engine.graph.memory import activation_bytes
from engine.layout import LabelLayout
from engine.model_file import ModelFile
from engine.stacks.base import StackInfo
from engine.tiling import FrameTiling

MB = 2**20
BASE = 320 * MB  # interpreter, NumPy, Dask, Zarr, Arrow, ONNX Runtime, one tiny job (measured)
FILE_COPIES = 3  # the file as read, the parsed graph, and its copy for shape inference
SESSION_COPIES = 2  # a session's weights, and their prepacked form; one session per pixel type
USABLE = 0.8  # of the memory there is: the page cache and other processes want some too
TILES = (4096, 2048, 1024, 512, 256, 128)  # px, tried from the largest


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted peak of all processes of an in-process job, in bytes."""

    base: int
    model: int
    activations: int  # of one tile
    frame: int  # pixels, probabilities, labels, measures of one frame
    block: int  # labels of a block
    workers: int

    @property
    def shared(self) -> int:
        """What is there once, however many blocks are in flight."""
        return self.base + self.model

    @property
    def per_worker(self) -> int:
        """What each block in flight adds."""
        return self.activations + self.frame + self.block

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
    stacks: Sequence[tuple[StackInfo, LabelLayout]],
    model: ModelFile,
    *,
    tile: int | None,
    halo: int | None,
    workers: int | None,
    cores: int,
    memory_bytes: int,
) -> TilingChoice:
    """Whole frames where they fit, else fewer at a time, else the largest tile that fits.

    `tile` and `workers` are taken as given where they are not None. `halo` is None for a network
    that cannot be cut. Raises UsageError where nothing fits, with both numbers.
    """
    stride = model.spec.stride
    allowed = int(memory_bytes * USABLE)
    n_blocks = sum(layout.n_blocks for _, layout in stacks)
    tiles: list[int | None] = [tile] if tile else [None]
    if tile is None and halo is not None:
        tiles += [t - t % stride for t in TILES if t - t % stride > 2 * halo]
    # More blocks in flight than there are blocks would only be memory on paper.
    wanted = max(min(workers or cores, n_blocks), 1)
    smallest = None
    for side in tiles:
        tilings = tuple(
            FrameTiling(layout.shape[-2], layout.shape[-1], stride, halo or 0, side)
            for _, layout in stacks
        )
        one = estimate(stacks, tilings, model)
        fit = (allowed - one.shared) // one.per_worker
        count = wanted if workers else min(wanted, fit)
        if 0 < count <= fit:
            return TilingChoice(tilings, count, max(cores // count, 1), replace(one, workers=count))
        least = one.shared + one.per_worker * (wanted if workers else 1)
        smallest = min(smallest or least, least)
    raise UsageError(
        f"the job needs {(smallest or 0) / MB:,.0f} MB at the least, and {allowed / MB:,.0f} MB "
        "may be used; free some memory, give fewer --workers, or cut the frames smaller"
    )


def estimate(
    stacks: Sequence[tuple[StackInfo, LabelLayout]],
    tilings: Sequence[FrameTiling],
    model: ModelFile,
) -> MemoryEstimate:
    """Predicted needs with one block in flight, by the most demanding stack."""
    n_in, n_out = len(model.spec.channels), model.spec.n_outputs
    graph = model.parse()
    tiles = {tiling.tile_shape for tiling in tilings}
    sessions = len({info.dtype for info, _ in stacks})
    return MemoryEstimate(
        base=BASE,
        model=len(model.data) * (FILE_COPIES + SESSION_COPIES * sessions),
        activations=max(activation_bytes(graph, *shape) for shape in tiles),
        frame=max(
            _frame_bytes(info, tiling, n_in, n_out)
            for (info, _), tiling in zip(stacks, tilings, strict=True)
        ),
        block=max(_block_bytes(layout) for _, layout in stacks),
        workers=1,
    )


def _frame_bytes(info: StackInfo, tiling: FrameTiling, n_in: int, n_out: int) -> int:
    pixels = tiling.padded[0] * tiling.padded[1]
    raw = pixels * np.dtype(info.dtype).itemsize * (info.size("C") + n_in)  # as read, as padded
    probabilities = pixels * 4 * n_out
    labels = pixels * (4 + 1)  # and the mask they come from
    counted = pixels * 8  # NumPy counts 16-bit pixels as 64-bit indices
    return raw + probabilities + labels + counted


def _block_bytes(layout: LabelLayout) -> int:
    size = math.prod(layout.shard) * np.dtype(layout.dtype).itemsize
    return 2 * size + size // 4  # the labels, once more while they are encoded, and encoded
