"""How the labels of a stack lie on disk: shape, chunks, shards, blocks and stitch groups.

    label array (T, Z, Y, X)                    shard = block = what one task is responsible for
    +--------+--------+--------+---+
    |  t 0-9 | 10-19  | 20-29  |...|            chunk = what a viewer reads
    +--------+--------+--------+---+

A block is whole frames, as many as fit BLOCK_PIXELS. A frame of more pixels than that is cut:

    +--------+--------+--------+                each block is one region of one frame; sides are
    | block 0| block 1| block 2|                balanced, so that no sliver is left at the ends
    +--------+--------+--------+
    | block 3| block 4| block 5|
    +--------+--------+--------+

Ids count up within a *scope*: a frame, or all planes of a time point where labels connect along Z.
A *stitch group* is the blocks that share scopes, and are stitched together.

Everything follows from the shape of the stack and from the settings: never from workers, memory or
machine, so that the same stack gives the same bytes everywhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from engine.errors import UsageError
from engine.geometry.tiling import Window, round_up

BLOCK_PIXELS = 8 * 2**20  # labels of one block: 32 MB, about a second of work on one core
MAX_BLOCK_FRAMES = 256  # tiny frames: what a resumed job redoes stays small
REGION = 2048  # px; sides of the regions of a cut frame are at most about this
GRAIN = 16  # px; chunk sides of a cut frame are multiples of it
WHOLE = 2048  # px; sides up to this are one chunk
CHUNK = 1024  # px; chunk side of larger frames that are not cut
LABEL_TYPES = ("uint32", "uint64")
CLASS_TYPE = "uint8"

Sizes = tuple[int, int, int, int]  # along T, Z, Y, X


@dataclass(frozen=True)
class Block:
    """The unit of scheduling, resuming and failing: its labels are one shard."""

    index: int
    t: tuple[int, int]  # half-open, in the stack's own numbering
    z: tuple[int, int]
    y: Window  # rows of the frame; all of them unless the frame is cut
    x: Window

    @property
    def n_frames(self) -> int:
        """Frames that the block is part of."""
        return (self.t[1] - self.t[0]) * (self.z[1] - self.z[0])

    @property
    def frames(self) -> Iterator[tuple[int, int]]:
        """(t, z) of each frame, in order."""
        return itertools.product(range(*self.t), range(*self.z))


@dataclass(frozen=True)
class StitchGroup:
    """Blocks whose objects may be one: those of a frame, or of all planes where they connect.

    `rows` are numbers of blocks. First pixels of objects in a row come before those of the next
    row, in raster order of their scope, so that ids can be given row by row.
    """

    index: int
    t: tuple[int, int]  # half-open, in the stack's own numbering
    z: tuple[int, int]
    rows: tuple[tuple[int, ...], ...]

    @property
    def blocks(self) -> tuple[int, ...]:
        """Numbers of all blocks, in raster order."""
        return tuple(itertools.chain.from_iterable(self.rows))

    @property
    def frames(self) -> Iterator[tuple[int, int]]:
        """(t, z) of each frame, in order."""
        return itertools.product(range(*self.t), range(*self.z))


@dataclass(frozen=True)
class LabelLayout:
    """Label array of one stack, and its blocks. Plain data; `make_layout` decides."""

    axes: str  # the stack's axes without C
    shape: tuple[int, ...]
    dtype: str
    t0: int  # first frame of the selection
    z0: int
    block_size: Sizes  # of every block but the last ones
    chunk_size: tuple[int, int]  # px along Y and X
    connect_z: bool  # objects continue from plane to plane

    @cached_property
    def sizes(self) -> Sizes:
        """Lengths along T, Z, Y, X; 1 where there is no such axis."""
        given = dict(zip(self.axes, self.shape, strict=True))
        return given.get("T", 1), given.get("Z", 1), given["Y"], given["X"]

    def _along(self, sizes: Sizes) -> tuple[int, ...]:
        named = dict(zip("TZYX", sizes, strict=True))
        return tuple(named[axis] for axis in self.axes)

    def of_kind(self, *, instances: bool) -> LabelLayout:
        """The same blocks for labels of instances, or for a class map."""
        most = max_objects(self.sizes, connect_z=self.connect_z)
        return replace(self, dtype=label_type(most) if instances else CLASS_TYPE)

    @property
    def n_frames(self) -> int:
        """Frames in the label array."""
        return self.sizes[0] * self.sizes[1]

    @property
    def is_cut(self) -> bool:
        """Whether frames are cut into regions."""
        return self.block_size[2:] != self.sizes[2:]

    @property
    def is_stitched(self) -> bool:
        """Whether blocks give provisional labels, which are stitched afterwards."""
        return self.is_cut or self.connect_z

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of a chunk, along `axes`."""
        return self._along((1, 1, *self.chunk_size))

    @property
    def shard(self) -> tuple[int, ...]:
        """Shape of a shard, along `axes`: whole chunks."""
        t, z, y, x = self.block_size
        return self._along((t, z, round_up(y, self.chunk_size[0]), round_up(x, self.chunk_size[1])))

    @cached_property
    def grid(self) -> Sizes:
        """Number of blocks along T, Z, Y, X."""
        t, z, y, x = (-(-n // side) for n, side in zip(self.sizes, self.block_size, strict=True))
        return t, z, y, x

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return math.prod(self.grid)

    def position(self, index: int) -> Sizes:
        """Place of block number `index` in the grid; numbers run in raster order."""
        t, z, y, x = map(int, np.unravel_index(index, self.grid))
        return t, z, y, x

    def number(self, position: Sizes) -> int:
        """Number of the block at a place in the grid."""
        return int(np.ravel_multi_index(position, self.grid))

    def block(self, index: int) -> Block:
        """Block number `index`."""
        places = zip(self.position(index), self.block_size, self.sizes, strict=True)
        t, z, y, x = ((at * side, min((at + 1) * side, size)) for at, side, size in places)
        own_t, own_z = ((o + first, o + stop) for o, (first, stop) in ((self.t0, t), (self.z0, z)))
        return Block(index, own_t, own_z, Window(*y), Window(*x))

    def blocks(self) -> Iterator[Block]:
        """All blocks in order."""
        return map(self.block, range(self.n_blocks))

    def around(self, block: Block, margin: int) -> tuple[Window, Window]:
        """Rows and columns of a block with `margin` px around it, as far as the frame goes."""
        height, width = self.sizes[2:]
        return block.y.around(margin, height), block.x.around(margin, width)

    def blocks_within(self, block: Block, rows: Window, columns: Window) -> Iterator[Block]:
        """Blocks of the same frames as `block` that lie in these rows and columns, in order."""
        t, z, _, _ = self.position(block.index)
        _, _, height, width = self.block_size
        for y in range(rows.start // height, -(-rows.stop // height)):
            for x in range(columns.start // width, -(-columns.stop // width)):
                yield self.block(self.number((t, z, y, x)))

    # -- stitch groups -----------------------------------------------------------------------------

    @property
    def _group_size(self) -> int:
        """Blocks of a stitch group; their numbers follow each other."""
        return math.prod(self.grid[1 if self.connect_z else 2 :])

    @property
    def n_stitch_groups(self) -> int:
        """Number of stitch groups."""
        return self.n_blocks // self._group_size

    def stitch_group(self, index: int) -> StitchGroup:
        """Stitch group number `index`, in order of (t, z)."""
        start, stop = index * self._group_size, (index + 1) * self._group_size
        row = math.prod(self.grid[2:]) if self.connect_z else self.grid[3]
        first, last = self.block(start), self.block(stop - 1)
        rows = tuple(tuple(range(at, at + row)) for at in range(start, stop, row))
        return StitchGroup(index, first.t, (first.z[0], last.z[1]), rows)

    def stitch_groups(self) -> Iterator[StitchGroup]:
        """All stitch groups in order."""
        return map(self.stitch_group, range(self.n_stitch_groups))

    def stitch_group_of(self, block: int) -> int:
        """Number of the stitch group that holds a block."""
        return block // self._group_size

    def frame_index(self, t: int, z: int) -> int:
        """Number of a frame in the label array, in order of (t, z)."""
        return (t - self.t0) * self.sizes[1] + z - self.z0

    def frame_of(self, index: int) -> tuple[int, int]:
        """The (t, z) of a frame by its number, see `frame_index`."""
        t, z = divmod(index, self.sizes[1])
        return t + self.t0, z + self.z0


def make_layout(
    axes: str,
    shape: tuple[int, ...],
    *,
    instances: bool,
    first: tuple[int, int] = (0, 0),
    connect_z: bool = False,
    whole_frames: bool = False,
) -> LabelLayout:
    """Decide how labels of `shape` (along `axes`, which end in YX) lie on disk.

    `first` is the first frame of the selection, (t, z). With `connect_z`, objects continue from
    plane to plane. With `whole_frames`, no frame is cut, however large: for a network that needs
    whole frames.
    """
    given = dict(zip(axes, shape, strict=True))
    sizes = (given.get("T", 1), given.get("Z", 1), given["Y"], given["X"])
    t, z, height, width = sizes
    connect_z = connect_z and z > 1
    if height * width > BLOCK_PIXELS and not whole_frames:
        chunk = (_balanced(height, width), _balanced(width, height))
        block = (1, 1, min(2 * chunk[0], height), min(2 * chunk[1], width))
    else:
        chunk = (_chunk(height), _chunk(width))
        fit = min(max(BLOCK_PIXELS // (height * width), 1), MAX_BLOCK_FRAMES)
        frames = (1, fit) if fit < z else (min(fit // z, t), z)
        block = (*frames, height, width)
    layout = LabelLayout(axes, shape, CLASS_TYPE, *first, block, chunk, connect_z)
    return layout.of_kind(instances=instances)


def _chunk(side: int) -> int:
    return side if side <= WHOLE else CHUNK


def _balanced(side: int, other: int) -> int:
    """Chunk side of a cut frame: two chunks are a region, and regions are about equal.

    Where the other side is short, regions are longer, so that they have as many pixels.
    """
    longest = REGION * REGION // max(min(other, REGION), 2 * GRAIN)
    regions = -(-side // longest)
    return round_up(-(-side // (2 * regions)), GRAIN)


def max_objects(sizes: Sizes, *, connect_z: bool) -> int:
    """The most objects that a scope can hold: no two touch, not even by a corner."""
    _, z, y, x = sizes
    depth = -(-z // 2) if connect_z else 1
    return depth * -(-y // 2) * -(-x // 2)


def label_type(most: int) -> str:
    """The smallest type that holds ids up to `most`, so that ids cannot overflow."""
    for name in LABEL_TYPES:
        if most <= np.iinfo(name).max:
            return name
    raise UsageError(f"{most:,} objects are possible, more than any type of label can hold")
