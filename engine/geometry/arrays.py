"""The arrays of a stack's result: what is kept, where each lies, how its levels follow.

    NAME.zarr/
      0, 1, ...                the raw stack and its levels, where asked for   (T, C, Z, Y, X)
      labels/MODEL/0, 1, ...   labels or classes, and their levels                (T, Z, Y, X)
      labels/MODEL-objects/0, 1, ...   objects of classes, where asked for        (T, Z, Y, X)
      probability/MODEL/0      8-bit probabilities, where asked for        (T, [C,] Z, Y, X)

All are cut into the same blocks: what a task is responsible for is one shard of each.

A level halves the one below along Y and X, until the longer side is about 256 px. Its blocks have
as many pixels as those below, so that one of a cut frame is made of two by two:

    level 0  +---+---+---+---+        level 1  +---+---+        level 2  +---+
             | 0 | 1 | 2 | 3 |                 | 0 | 1 |                 | 0 |
             +---+---+---+---+                 +---+---+                 +---+
             | 4 | 5 | 6 | 7 |
             +---+---+---+---+
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.geometry.layout import CLASS_TYPE, Block, LabelLayout, label_type, max_objects
from engine.geometry.tiling import Window

LABELS, OBJECTS, PROBABILITY, IMAGE = "labels", "objects", "probability", "image"
SMALLEST = 256  # px; about the longer side of the coarsest level


@dataclass(frozen=True)
class ArrayShape:
    """One array as Zarr lays it out."""

    axes: str
    shape: tuple[int, ...]
    dtype: str
    chunk: tuple[int, ...]
    shard: tuple[int, ...]


@dataclass(frozen=True)
class ResultArray:
    """One of a stack's arrays with its levels. Plain data; `arrays_of` decides."""

    kind: str  # LABELS, OBJECTS, PROBABILITY or IMAGE: names it in records
    group: str  # path of its group inside NAME.zarr; "" is the root
    dtype: str
    channels: int  # along C; 0 where there is no such axis
    levels: int  # at least 1: level 0

    @property
    def is_labels(self) -> bool:
        """Whether it is a label image: of instances, or a class map."""
        return self.kind in (LABELS, OBJECTS)

    @property
    def gives_instances(self) -> bool:
        """Whether it is a label image whose values are instance ids."""
        return self.is_labels and self.dtype != CLASS_TYPE

    def levels_of_block(self, layout: LabelLayout) -> int:
        """Levels that each block gives by itself: one where frames are cut, or planes connect."""
        return 1 if layout.is_stitched else self.levels

    def path(self, level: int = 0) -> str:
        """Path of a level inside NAME.zarr."""
        return f"{self.group}/{level}".lstrip("/")

    def shape(self, layout: LabelLayout) -> ArrayShape:
        """The array beside labels of `layout`, which is the level's."""
        own = {"C": (self.channels, 1, self.channels)} if self.channels else {}
        along = {
            axis: sizes
            for axis, *sizes in zip(
                layout.axes, layout.shape, layout.chunk, layout.shard, strict=True
            )
        } | own
        axes = "".join(axis for axis in "TCZYX" if axis in along)
        shape, chunk, shard = zip(*(along[axis] for axis in axes), strict=True)
        return ArrayShape(axes, shape, self.dtype, chunk, shard)

    def key(self, layout: LabelLayout, block: Block, level: int = 0) -> str:
        """Path of a block's shard inside NAME.zarr; `layout` is the level's."""
        at = dict(zip("TZYX", layout.position(block.index), strict=True)) | {"C": 0}
        places = "/".join(str(at[axis]) for axis in self.shape(layout).axes)
        return f"{self.path(level)}/c/{places}"


def arrays_of(
    layout: LabelLayout,
    labels: str,
    *,
    objects: tuple[str, int] | None = None,
    probability: tuple[str, int] | None = None,
    image: tuple[str, int] | None = None,
) -> tuple[ResultArray, ...]:
    """The arrays of a stack's result, labels first.

    `labels` is the path of the label image, `objects` that of instances beside a class map, and of
    how many classes these are. `probability` is the path and the channels (0 where the model has
    one output) of probabilities to be kept, `image` the type and the channels of raw pixels.
    """
    levels = 1 + n_halvings(layout)
    arrays = [ResultArray(LABELS, labels, layout.dtype, 0, levels)]
    if objects is not None:
        path, n_classes = objects  # objects of two classes may touch, those of one may not
        most = n_classes * max_objects(layout.sizes, connect_z=layout.connect_z)
        arrays.append(ResultArray(OBJECTS, path, label_type(most), 0, levels))
    if probability is not None:
        path, channels = probability
        arrays.append(ResultArray(PROBABILITY, path, "uint8", channels, 1))
    if image is not None:
        dtype, channels = image
        arrays.append(ResultArray(IMAGE, "", dtype, channels, levels))
    return tuple(arrays)


def class_map_of(arrays: Sequence[ResultArray]) -> ResultArray | None:
    """The class map among a stack's arrays; None of a binary model."""
    return next((a for a in arrays if a.is_labels and not a.gives_instances), None)


def instances_of(arrays: Sequence[ResultArray]) -> ResultArray | None:
    """The array of instance ids among a stack's; None where there are no objects."""
    return next((a for a in arrays if a.gives_instances), None)


def n_halvings(layout: LabelLayout) -> int:
    """Levels above level 0: until the longer side is nearest to SMALLEST, by its logarithm."""
    return max(round(math.log2(max(layout.sizes[2:]) / SMALLEST)), 0)


def level_layout(layout: LabelLayout, level: int) -> LabelLayout:
    """The layout of labels halved `level` times along Y and X; sizes are rounded up."""
    for _ in range(level):
        t, z, y, x = layout.sizes
        height, width = -(-y // 2), -(-x // 2)
        given = {"T": t, "Z": z, "Y": height, "X": width}
        block, chunk = layout.block_size, layout.chunk_size
        layout = replace(
            layout,
            shape=tuple(given[axis] for axis in layout.axes),
            block_size=(*block[:2], min(block[2], height), min(block[3], width)),
            chunk_size=(min(chunk[0], height), min(chunk[1], width)),
            connect_z=False,
        )
    return layout


def sources(below: LabelLayout, block: Block) -> Iterator[tuple[Block, Window, Window]]:
    """Blocks of the level below that a block is made of.

    Each with the rows and columns that it gives, counted from the block's own first pixel.
    """
    t = (block.t[0] - below.t0) // below.block_size[0]
    z = (block.z[0] - below.z0) // below.block_size[1]
    _, _, height, width = below.block_size
    _, _, rows, columns = below.grid
    for row in range(2 * block.y.start // height, min(-(-2 * block.y.stop // height), rows)):
        for at in range(2 * block.x.start // width, min(-(-2 * block.x.stop // width), columns)):
            source = below.block(below.number((t, z, row, at)))
            yield source, _halved(source.y, block.y), _halved(source.x, block.x)


def _halved(source: Window, block: Window) -> Window:
    return Window(source.start // 2 - block.start, -(-source.stop // 2) - block.start)


def shard_bytes(array: ResultArray, layout: LabelLayout) -> int:
    """Bytes of a shard as it is held in memory."""
    shape = array.shape(layout)
    return math.prod(shape.shard) * np.dtype(array.dtype).itemsize
