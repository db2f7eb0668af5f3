"""What a job needs of memory, and the tiling and workers that fit into what there is.

    peak = base + runtime + workers x (activations of a tile + buffers of a frame + a block)

Nothing in it grows with the number of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import UsageError
from engine.graph.memory import activation_bytes
from engine.layout import LabelLayout
from engine.model_file import ModelFile
from engine.stacks.base import StackInfo
from engine.tiling import FrameTiling

MB = 2**20
BASE = 300 * MB  # interpreter, NumPy, Dask, Zarr, Arrow, ONNX Runtime, one tiny job (measured)
WEIGHT_COPIES = 4  # the file, the parsed graph, the session, its prepacked weights
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
    def peak(self) -> int:
        """The figure a job is held to."""
        return self.base + self.model + self.workers * (self.activations + self.frame + self.block)


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
    crowd = [min(workers, n_blocks)] if workers else _halvings(max(min(cores, n_blocks), 1))
    smallest = None
    for side in tiles:
        tilings = tuple(
            FrameTiling(layout.shape[-2], layout.shape[-1], stride, halo or 0, side)
            for _, layout in stacks
        )
        for count in crowd:
            memory = estimate(stacks, tilings, model, count)
            if memory.peak <= allowed:
                return TilingChoice(tilings, count, max(cores // count, 1), memory)
            smallest = min(smallest or memory.peak, memory.peak)
    raise UsageError(
        f"the job needs {(smallest or 0) / MB:,.0f} MB at the least, and {allowed / MB:,.0f} MB "
        "may be used; free some memory, give fewer --workers, or cut the frames smaller"
    )


def estimate(
    stacks: Sequence[tuple[StackInfo, LabelLayout]],
    tilings: Sequence[FrameTiling],
    model: ModelFile,
    workers: int,
) -> MemoryEstimate:
    """Predicted peak with `workers` blocks in flight, by the most demanding stack."""
    n_in, n_out = len(model.spec.channels), model.spec.n_outputs
    activations = {
        shape: activation_bytes(model.proto, *shape) for shape in {t.tile_shape for t in tilings}
    }
    frames = [
        _frame_bytes(info, t, n_in, n_out) for (info, _), t in zip(stacks, tilings, strict=True)
    ]
    return MemoryEstimate(
        base=BASE,
        model=len(model.data) * WEIGHT_COPIES,
        activations=max(activations.values()),
        frame=max(frames),
        block=max(_block_bytes(layout) for _, layout in stacks),
        workers=workers,
    )


def _frame_bytes(info: StackInfo, tiling: FrameTiling, n_in: int, n_out: int) -> int:
    pixels = tiling.padded[0] * tiling.padded[1]
    raw = pixels * info.size("C") * {"uint8": 1, "uint16": 2, "int16": 2, "float32": 4}[info.dtype]
    padded = raw // info.size("C") * n_in
    probabilities = pixels * 4 * n_out
    labels = pixels * (4 + 4 + 1)  # before and after dropping small objects, and the mask
    measures = pixels * 10  # indices, ids and weights of the foreground, a third of the frame
    return raw + padded + probabilities + labels + measures


def _block_bytes(layout: LabelLayout) -> int:
    itemsize = 4 if layout.dtype == "uint32" else 1
    size = itemsize
    for length in layout.shard:
        size *= length
    return size + size // 4  # the labels, and their encoded chunks


def _halvings(count: int) -> list[int]:
    steps = [count]
    while steps[-1] > 1:
        steps.append(steps[-1] // 2)
    return steps
