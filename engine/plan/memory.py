"""What a job needs of memory, and the tiling and workers that fit into what there is.

    host      base + model + compiling + blocks in flight x (a run of a tile + a frame + a block)
    device    sessions     + runs at once (DEVICE_RUNS at most) x a run

Nothing in it grows with the number of frames. `engine.plan.footprint` holds the constants.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from engine.errors import UsageError
from engine.geometry.arrays import (
    IMAGE,
    PROBABILITY,
    ResultArray,
    instances_of,
    level_layout,
    shard_bytes,
)
from engine.geometry.layout import Block, LabelLayout
from engine.geometry.tiling import FrameTiling, round_up
from engine.labels.postprocessing import Postprocessing
from engine.model.file import ModelFile
from engine.plan import footprint as of
from engine.plan.footprint import MB
from engine.plan.resources import Site, parse_memory
from engine.runtimes.base import DEVICE_RUNS, SESSIONS, MemoryNeeds, Needs, Runtime, Shape
from engine.runtimes.registry import runtime_of
from engine.stacks.base import StackInfo, window_shape

ENCODED = {kind: share.value for kind, share in of.SHARES.items()}  # of a shard's raw bytes
TILES = (4096, 2048, 1024, 512, 256, 128)  # px, tried from the largest
# px that a device takes at once, from the most: a single small tile leaves most of it idle. Chosen.
BATCHES = (4 * 2**20, 2**20, 0)


class Way(NamedTuple):
    """How the frames of a stack go through the network."""

    tiling: FrameTiling
    batch: int = 1  # tiles at once, of several frames where these are whole

    @property
    def together(self) -> int:
        """Whole frames that go through it at once."""
        return max(self.batch // self.tiling.n_tiles, 1)

    @property
    def shape(self) -> Shape:
        """That of all runs."""
        return self.batch, *self.tiling.tile_shape


Ways = tuple[Way, ...]  # of each stack


@dataclass(frozen=True)
class Workload:
    """A stack, as far as memory goes."""

    info: StackInfo
    layout: LabelLayout
    postprocessing: Postprocessing
    arrays: tuple[ResultArray, ...]  # of its result
    is_windowed: bool = False  # the network takes a copy of the pixels, limited to a window
    kept: tuple[ResultArray, ...] = ()  # of an earlier job: read, decoded and labelled again

    @property
    def finds_objects(self) -> bool:
        """Whether there is more to it than a class map."""
        return instances_of(self.arrays) is not None


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted peak of all processes of an in-process job, in bytes."""

    base: int
    model: int
    activations: int  # of one tile, on the host
    frame: int  # pixels, probabilities, labels, measures of one frame, or a block's part of it
    block: int  # labels of a block, and what is kept beside them
    stitch: int  # a stitch group being stitched, 0 where none is; after all blocks are segmented
    level: int  # a block of a level being made, after that
    workers: int
    device: Needs | None = None  # None: the network runs on the host
    compiling: int = 0  # loops that the job is the first to meet

    @property
    def shared(self) -> int:
        """What is there once, however many blocks are in flight."""
        return self.base + self.model + self.compiling

    @property
    def per_worker(self) -> int:
        """What each block in flight adds."""
        return max(self.activations + self.frame + self.block, self.stitch, self.level)

    @property
    def peak(self) -> int:
        """The figure a job is held to."""
        return self.shared + self.workers * self.per_worker

    @property
    def device_peak(self) -> int:
        """What the network takes of the device's own memory; 0 where it has none."""
        if self.device is None:
            return 0
        return self.device.sessions + min(self.workers, DEVICE_RUNS) * self.device.run


@dataclass(frozen=True)
class TilingChoice:
    """How the frames of each stack go through the network, and by how many at a time."""

    ways: Ways
    workers: int
    threads: int
    memory: MemoryEstimate
    fixes_shape: bool = False  # see `fixes_shape`
    preferred_bytes: int | None = None  # of memory that the preferred way needs; None: it is this


def choose_tiling(
    stacks: Sequence[Workload],
    model: ModelFile,
    site: Site,
    *,
    tile: int | None,
    halo: int | None,
    workers: int | None,
    limit: str | None,
) -> TilingChoice:
    """Whole frames or regions where they fit, else fewer at a time, else the largest tile.

    `tile` and `workers` are taken as given where they are not None. `halo` is None for a network
    that cannot be cut. `limit`: see `first_fit`, which also raises UsageError where nothing fits.
    """
    stride, target = model.spec.stride, site.target
    sides: list[int | None] = [tile] if tile else [None]
    if tile is None and halo is not None:
        sides += [t - t % stride for t in TILES if t - t % stride > 2 * halo]
    runtime = runtime_of(target.runtime)
    compiles = any(
        site.compiles(one.info.dtype, one.postprocessing) for one in stacks if one.finds_objects
    )
    batches = BATCHES if target.is_on_device else (0,)

    def candidates() -> Iterator[tuple[Ways, MemoryEstimate]]:
        """Every size of tile and batch with what it takes, the preferred first."""
        for side, most in itertools.product(sides, batches):
            tilings = (_tiling(one, stride, halo or 0, side) for one in stacks)
            ways = tuple(
                Way(tiling, _batch(one, tiling, most))
                for one, tiling in zip(stacks, tilings, strict=True)
            )
            runs = runs_of(stacks, ways)
            fixes = fixes_shape(runs, runtime, model)
            kinds = runs if fixes else {dtype for dtype, _ in runs}
            shapes = {way.shape for way in ways}
            network = runtime.memory(model, target, shapes, min(len(kinds), SESSIONS), fixes)
            yield ways, estimate(stacks, ways, network, model, compiles)

    choice = first_fit(candidates(), stacks, site, workers, limit)
    return replace(choice, fixes_shape=fixes_shape(runs_of(stacks, choice.ways), runtime, model))


def runs_of(stacks: Sequence[Workload], ways: Ways) -> Counter[tuple[str, Shape]]:
    """How many runs of the network a job has, by pixel type and shape."""
    runs = Counter[tuple[str, Shape]]()
    for one, way in zip(stacks, ways, strict=True):
        runs[one.info.dtype, way.shape] += one.layout.n_frames * way.tiling.n_tiles // way.batch
    return runs


def fixes_shape(runs: Mapping[tuple[str, Shape], int], runtime: Runtime, model: ModelFile) -> bool:
    """Whether sessions of a job are for one shape alone: where the runtime builds engines.

    Or where it prefers that, and all runs of the job are of one kind: a session for each of
    several shapes would keep buffers for each.
    """
    if runtime.builds_engines:
        return True
    return len(runs) == 1 and runtime.prefers_one_shape(model, sum(runs.values()))


def first_fit(
    candidates: Iterable[tuple[Ways, MemoryEstimate]],
    stacks: Sequence[Workload],
    site: Site,
    workers: int | None,
    limit: str | None,
) -> TilingChoice:
    """The first of several ways that fits, with as many blocks in flight as do.

    Each comes with what it takes for one block. `workers` is None where cores and memory decide,
    `limit` the host's memory that may be used, as "8GB", and None where most of what is free is.
    Raises UsageError, with both numbers, where none fits.
    """
    host = parse_memory(limit) if limit else int(site.memory_bytes * of.USABLE.value)
    device = int(site.device_memory.free * of.USABLE.value) if site.device_memory else None
    # More blocks in flight than there are blocks would only be memory on paper.
    wanted = max(min(workers or site.cores, sum(one.layout.n_blocks for one in stacks)), 1)
    least: list[MemoryEstimate] = []
    on_devices: list[int] = []
    for ways, one in candidates:
        fit = (host - one.shared) // one.per_worker
        count = wanted if workers else min(wanted, fit)
        memory = replace(one, workers=count)
        if 0 < count <= fit and (device is None or memory.device_peak <= device):
            preferred = least[0].peak if least else None
            return TilingChoice(
                ways, count, max(site.cores // count, 1), memory, preferred_bytes=preferred
            )
        least.append(replace(one, workers=wanted if workers else 1))
        on_devices.append(replace(one, workers=wanted).device_peak)
    on_device, on_host = min(on_devices), min(one.peak for one in least)
    if device is not None and on_device > device:
        raise UsageError(
            f"the network needs {on_device / MB:,.0f} MB of the device's memory at the least, and "
            f"{device / MB:,.0f} MB may be used; free some, give fewer --workers, or use "
            "--device cpu"
        )
    raise UsageError(
        f"the job needs {on_host / MB:,.0f} MB at the least, and {host / MB:,.0f} MB may be used; "
        f"free some memory, give --memory {math.ceil(on_host / MB)}MB or more where there is that "
        "much, or fewer --workers"
    )


def _tiling(one: Workload, stride: int, halo: int, side: int | None) -> FrameTiling:
    """Tiles of `side` px; where it is None, one for each frame or region."""
    layout, margin = one.layout, round_up(one.postprocessing.margin, stride)
    height, width = layout.sizes[2:]
    if side is None and layout.is_cut:
        # A region's edges need not lie on the stride: its tile reaches out to where they would.
        region = max(layout.block_size[2:])
        slack = 0 if all(size % stride == 0 for size in layout.block_size[2:]) else stride
        side = round_up(region, stride) + slack + 2 * (margin + halo)
    return FrameTiling(height, width, stride, halo, side)


def _batch(one: Workload, tiling: FrameTiling, most: int) -> int:
    """Tiles of at most `most` px together (one at least), as many in each run of a block."""
    layout, n_tiles = one.layout, tiling.n_tiles
    fit = max(most // math.prod(tiling.tile_shape), 1)
    if layout.is_cut:
        windows = layout.around(_middle(layout), one.postprocessing.margin)
        return _even(len(tiling.region(*windows).tiles), fit)
    if fit < n_tiles:
        return _even(n_tiles, fit)
    return n_tiles * _even(layout.block(0).n_frames, fit // n_tiles)


def _even(count: int, most: int) -> int:
    """How many at a time where `count` are done at most `most` at a time, and no fewer at last."""
    return math.ceil(count / math.ceil(count / most))


def estimate(
    stacks: Sequence[Workload],
    ways: Ways,
    network: MemoryNeeds,
    model: ModelFile | None,
    compiles: bool = False,
) -> MemoryEstimate:
    """Predicted needs with one block in flight, by the most demanding stack.

    `model` is None where probabilities that an earlier job kept of a binary model are labelled.
    `compiles`: see `engine.plan.compiling`.
    """
    n_in, files = 1, 0
    kept = (a for one in stacks for a in one.kept if a.kind == PROBABILITY)
    n_out = max((max(array.channels, 1) for array in kept), default=1)
    if model is not None:
        n_in, n_out = len(model.spec.channels), model.spec.n_outputs
        files = len(model.data) * of.FILE_COPIES.value
    return MemoryEstimate(
        base=of.BASE.value,
        model=files + network.host.sessions,
        activations=network.host.run,
        frame=max(
            _frame_bytes(one, way, n_in, n_out) for one, way in zip(stacks, ways, strict=True)
        ),
        block=max(_block_bytes(one.layout, one.arrays) for one in stacks),
        stitch=max(_stitch_bytes(one.layout, one.info.size("C")) for one in stacks),
        level=max(_level_bytes(one.layout, one.arrays) for one in stacks),
        workers=1,
        device=network.device,
        compiling=of.COMPILING.value if compiles else 0,
    )


def _frame_bytes(one: Workload, way: Way, n_in: int, n_out: int) -> int:
    """What a block holds at once of a frame; of all its planes where labels connect along Z."""
    info, layout, tiling = one.info, one.layout, way.tiling
    together = 1 if layout.is_cut else way.together
    n_all = info.size("C")  # all are read and measured, whichever the network takes
    itemsize = np.dtype(info.dtype).itemsize
    if layout.is_cut:
        margin = one.postprocessing.margin
        windows = [layout.around(block, margin) for block in (layout.block(0), _middle(layout))]
        regions = [tiling.region(*window) for window in windows]
        rows = max(r.read_y.size for r in regions)
        columns = max(r.read_x.size for r in regions)
        pixels = layout.block_size[2] * layout.block_size[3]
        around = max(y.size * x.size for y, x in windows)
        window = window_shape(info)  # of the survey, which goes through the frame first
        surveyed = info.read_bytes(*window, n_all) + math.prod(window) * n_in
        surveyed += math.prod(window) * n_in * itemsize if one.is_windowed else 0
    else:
        rows, columns = tiling.padded
        pixels = around = rows * columns
        surveyed = 0
    read = info.read_bytes(min(rows, tiling.height), min(columns, tiling.width), n_all)
    padded = rows * columns * itemsize * n_in * together
    if way.batch > 1:  # tiles side by side, and what comes back of them
        padded += way.batch * math.prod(tiling.tile_shape) * (itemsize * n_in + 4 * n_out)
    planes = layout.block_size[1] if layout.connect_z else 1  # labelled together
    held = padded if n_in < n_all or one.is_windowed else 0  # the channels that the network takes
    held += around * 4 * n_out * max(planes, together)  # probabilities
    held += pixels * itemsize * n_all * (max(planes, together) - 1)  # pixels of the others
    held += pixels * (4 + 1 + of.MEASURE.value) * planes  # labels, the mask that they come from
    if one.postprocessing.objects:
        held += pixels * of.CLASS_OBJECTS.value * planes
    by_cores = one.postprocessing.instances == "cores"
    cutting = pixels * of.WATERSHED.value if one.postprocessing.instances == "watershed" else 0
    cutting += around * of.CORES.value * planes if by_cores else 0
    stored = sum(int(shard_bytes(a, layout) * (1 + ENCODED[a.kind])) for a in one.kept)
    if by_cores and layout.is_cut:  # a block's probabilities once more, with those around them
        stored += sum(around * a.channels for a in one.kept if a.kind == PROBABILITY)
    return stored + max(
        read + padded + held + pixels * of.COUNT.value, read + held + cutting, surveyed
    )


def _middle(layout: LabelLayout) -> Block:
    """Region in the middle of a cut frame: it has a halo on every side."""
    _, _, rows, columns = layout.grid
    return layout.block(layout.number((0, 0, rows // 2, columns // 2)))


def _block_bytes(layout: LabelLayout, arrays: tuple[ResultArray, ...]) -> int:
    """All of a block as it is encoded, twice while that is joined; pixels, which Zarr encodes.

    With the levels that are made of it: encoded as well, but for pixels.
    """
    held = joined = 0
    for array in arrays:
        share, levels = ENCODED[array.kind], range(array.levels_of_block(layout))
        first, *above = (shard_bytes(array, level_layout(layout, level)) for level in levels)
        if array.kind == IMAGE:
            held += int(first * (2 + share)) + sum(above)
        else:
            held += int((first + sum(above)) * share)
        joined = max(joined, int(first * share))
    return held + joined


def _level_bytes(layout: LabelLayout, arrays: tuple[ResultArray, ...]) -> int:
    """A shard of the level below with one plane of it, and the one that is filled from it."""
    above, needed = level_layout(layout, 1), [0]
    for array in (a for a in arrays if a.levels > 1):
        below, size = shard_bytes(array, layout), shard_bytes(array, above)
        share, n_planes = ENCODED[array.kind], math.prod(layout.block_size[:2])
        if array.kind == IMAGE:
            needed.append(int(max(below * (1 + share) + size, size * (2 + share))))
        else:
            needed.append(int(below * share + below / n_planes + 2 * size * share))
    return max(needed)


def _stitch_bytes(layout: LabelLayout, n_channels: int) -> int:
    """A row of blocks with its pieces, the rows of objects that span blocks, a pair of faces."""
    if not layout.is_stitched:
        return 0
    t, planes, height, width = layout.block_size
    _, depth, down, across = layout.grid
    if layout.connect_z:  # nearly every object spans blocks, if there are several: all are held
        pieces = t * math.prod(layout.sizes[1:]) // of.PIECE_PIXELS.value
        spanning = pieces if depth * down * across > 1 else 0
    else:  # those that lie on a line between regions
        pieces = t * planes * height * layout.sizes[3] // of.PIECE_PIXELS.value
        lines = (down - 1) * layout.sizes[3] + (across - 1) * layout.sizes[2]
        spanning = lines // of.PIECE_ROWS.value
    face = t * max(planes * max(height, width), height * width if layout.connect_z else 0)
    return (
        pieces * (of.PIECE.value + n_channels * of.PIECE_CHANNEL.value)
        + spanning * of.PIECE_ROWS.value * of.ROW.value
        + face * of.FACE.value
    )
