"""How the labels of a stack lie on disk: shape, chunks, shards, and the blocks that follow.

    label array (T, Z, Y, X)                    shard = block = what one task is responsible for
    +--------+--------+--------+---+
    |  t 0-9 | 10-19  | 20-29  |...|            chunk = what a viewer reads: at most CHUNK px a side
    +--------+--------+--------+---+

Everything follows from the shape of the stack alone: never from workers, memory or machine, so
that the same stack gives the same bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.tiling import round_up

BLOCK_PIXELS = 8 * 2**20  # labels of one block: 32 MB, about a second of work on one core
MAX_BLOCK_FRAMES = 256  # tiny frames: what a resumed job redoes stays small
WHOLE = 2048  # px; sides up to this are one chunk
CHUNK = 1024  # px; chunk side of larger frames


@dataclass(frozen=True)
class Block:
    """The unit of scheduling, resuming and failing: whole frames whose labels are one shard."""

    index: int
    t: tuple[int, int]  # half-open, in the stack's own numbering
    z: tuple[int, int]

    @property
    def n_frames(self) -> int:
        """Frames in the block."""
        return (self.t[1] - self.t[0]) * (self.z[1] - self.z[0])

    @property
    def frames(self) -> Iterator[tuple[int, int]]:
        """(t, z) of each frame, in order."""
        return ((t, z) for t in range(*self.t) for z in range(*self.z))


@dataclass(frozen=True)
class LabelLayout:
    """Label array of one stack, and its blocks. `t0`, `z0`: first frame of the selection."""

    axes: str  # the stack's axes without C
    shape: tuple[int, ...]
    dtype: str
    t0: int = 0
    z0: int = 0

    def _size(self, axis: str) -> int:
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def _along(self, sizes: dict[str, int]) -> tuple[int, ...]:
        return tuple(sizes[axis] for axis in self.axes)

    @property
    def n_frames(self) -> int:
        """Frames in the label array."""
        return self._size("T") * self._size("Z")

    @property
    def block_frames(self) -> tuple[int, int]:
        """Frames of a block along T and Z."""
        fit = BLOCK_PIXELS // (self._size("Y") * self._size("X"))
        fit = min(max(fit, 1), MAX_BLOCK_FRAMES)
        if fit < self._size("Z"):
            return 1, fit
        return min(fit // self._size("Z"), self._size("T")), self._size("Z")

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of a chunk, along `axes`."""
        sides = {a: n if (n := self._size(a)) <= WHOLE else CHUNK for a in "YX"}
        return self._along({"T": 1, "Z": 1, **sides})

    @property
    def shard(self) -> tuple[int, ...]:
        """Shape of a shard, along `axes`: whole chunks, whole frames."""
        t, z = self.block_frames
        y, x = (round_up(self._size(a), self.chunk[self.axes.index(a)]) for a in "YX")
        return self._along({"T": t, "Z": z, "Y": y, "X": x})

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        t, z = self.block_frames
        return -(-self._size("T") // t) * -(-self._size("Z") // z)

    def block(self, index: int) -> Block:
        """Block number `index`, in raster order of (t, z)."""
        t, z = self.block_frames
        row, column = divmod(index, -(-self._size("Z") // z))
        return Block(
            index,
            (self.t0 + row * t, self.t0 + min((row + 1) * t, self._size("T"))),
            (self.z0 + column * z, self.z0 + min((column + 1) * z, self._size("Z"))),
        )

    def blocks(self) -> Iterator[Block]:
        """All blocks in order."""
        return (self.block(index) for index in range(self.n_blocks))

    def shard_key(self, block: Block) -> str:
        """Key of the block's shard below the array, in Zarr's default encoding."""
        t, z = self.block_frames
        at = {"T": (block.t[0] - self.t0) // t, "Z": (block.z[0] - self.z0) // z, "Y": 0, "X": 0}
        return "/".join(["c", *(str(i) for i in self._along(at))])
