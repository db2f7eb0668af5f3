"""Windows and halos: pure geometry, one axis at a time; a frame is the product of its axes.

    frame, padded once to a multiple of the stride
    |<------------------------------- length ------------------------------>|
    |  write 0         |  write 1      |  write 2      |  write 3            |
    |<---- read 0 (size) ---->|
               |<---- read 1 (size) ---->|
               | halo |        | halo |

A *write window* is what a tile is responsible for; the *read window* is that plus the halo on
both sides. Every read window of an axis has the same size, because the runtime's memory grows
with each new shape: at the ends of the frame, where no halo is needed, the window slides
inwards instead of shrinking, and the write window there is longer. Write windows partition the
axis. All edges are multiples of the stride, so that pooling falls on the same pixels as in the
whole frame: without that no halo makes a tile's result equal to the frame's.

A *region* is the part of a frame that one block is responsible for. Its tiles are cut in the
frame's own coordinates, so that a region's probabilities are those of the whole frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from engine.errors import UsageError


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple


@dataclass(frozen=True)
class Window:
    """Half-open interval [start, stop) of pixels along one axis."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Length in px."""
        return self.stop - self.start

    def around(self, margin: int, length: int) -> Window:
        """The window with a margin on both sides, as far as an axis of `length` px goes."""
        return Window(max(self.start - margin, 0), min(self.stop + margin, length))

    def within(self, other: Window) -> Window:
        """What the two windows share."""
        return Window(max(self.start, other.start), min(self.stop, other.stop))

    def as_slice(self, origin: int = 0) -> slice:
        """The window as a slice of an array whose first pixel is `origin`."""
        return slice(self.start - origin, self.stop - origin)


@dataclass(frozen=True)
class Span:
    """One tile along one axis: where it reads and what it is responsible for."""

    read: Window
    write: Window

    @property
    def crop(self) -> slice:
        """The write window as a slice of the read window."""
        return self.write.as_slice(self.read.start)


@dataclass(frozen=True)
class Tile:
    """One read window of a frame on its way through the network."""

    y: Span
    x: Span

    @property
    def read(self) -> tuple[slice, slice]:
        """The read window as slices of the padded frame."""
        return self.y.read.as_slice(), self.x.read.as_slice()

    @property
    def write(self) -> tuple[slice, slice]:
        """The write window as slices of the padded frame."""
        return self.y.write.as_slice(), self.x.write.as_slice()

    @property
    def crop(self) -> tuple[slice, slice]:
        """The write window as slices of the tile's own pixels."""
        return self.y.crop, self.x.crop


def cut(length: int, size: int, halo: int, within: Window | None = None) -> tuple[Span, ...]:
    """Cut an axis of `length` px into spans that read at most `size` px with a halo of `halo`.

    `within` is what the spans write together, the whole axis by default. All figures are
    multiples of the stride; `size` must exceed twice the halo wherever the axis does not fit a
    single read window.
    """
    within = within or Window(0, length)
    if length <= size:
        return (Span(Window(0, length), within),)
    if size <= 2 * halo:
        raise UsageError(
            f"a tile of {size} px leaves nothing between two halos of {halo} px; "
            f"use a tile of more than {2 * halo} px"
        )
    spans = []
    at = within.start
    while at < within.stop:
        origin = min(max(at - halo, 0), length - size)
        reach = length if origin + size == length else origin + size - halo
        stop = min(reach, within.stop)
        spans.append(Span(Window(origin, origin + size), Window(at, stop)))
        at = stop
    return tuple(spans)


@dataclass(frozen=True)
class Region:
    """A part of a frame and the tiles that it takes.

    Tiles are in the coordinates of the padded frame. `read_y` and `read_x` say which pixels of
    the frame they need, those that the padding mirrors included.
    """

    y: Window  # what is asked for, in the frame
    x: Window
    read_y: Window
    read_x: Window
    tiles: tuple[Tile, ...]
    padded: tuple[int, int]  # height and width of the whole frame after padding


@dataclass(frozen=True)
class FrameTiling:
    """How one frame of (height, width) px goes through the network. Plain data."""

    height: int
    width: int
    stride: int  # px; every edge is a multiple of it
    halo: int  # px, a multiple of the stride
    tile: int | None  # px, side of the read windows; None: the whole frame at once

    def __post_init__(self) -> None:
        if self.halo % self.stride or (self.tile is not None and self.tile % self.stride):
            raise UsageError(
                f"tile {self.tile} and halo {self.halo} must be multiples of the stride, "
                f"{self.stride} px"
            )
        self.spans  # noqa: B018 - refuses a tile too small for its halo at once

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width after padding to the stride."""
        return round_up(self.height, self.stride), round_up(self.width, self.stride)

    @cached_property
    def spans(self) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
        """Spans along Y and along X."""
        height, width = self.padded
        return (
            cut(height, self.tile or height, self.halo),
            cut(width, self.tile or width, self.halo),
        )

    @property
    def n_tiles(self) -> int:
        """Tiles of a frame."""
        return len(self.spans[0]) * len(self.spans[1])

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Height and width of every read window."""
        return self.spans[0][0].read.size, self.spans[1][0].read.size

    @property
    def waste(self) -> float:
        """Share of the network's work that is halo or padding, 0..1."""
        tile_height, tile_width = self.tile_shape
        done = self.n_tiles * tile_height * tile_width
        return 1 - self.height * self.width / done

    def tiles(self) -> Iterator[Tile]:
        """Tiles in raster order."""
        rows, columns = self.spans
        return (Tile(y, x) for y in rows for x in columns)

    def region(self, y: Window | None = None, x: Window | None = None) -> Region:
        """The part of the frame within `y` and `x`, all of it by default."""
        y, x = y or Window(0, self.height), x or Window(0, self.width)
        height, width = self.padded
        rows = cut(height, self.tile or height, self.halo, self._aligned(y, height))
        columns = cut(width, self.tile or width, self.halo, self._aligned(x, width))
        return Region(
            y, x, _needed(rows, self.height), _needed(columns, self.width),
            tuple(Tile(row, column) for row in rows for column in columns), self.padded,
        )  # fmt: skip

    def _aligned(self, window: Window, padded: int) -> Window:
        """The smallest window of whole strides around `window`."""
        start = window.start - window.start % self.stride
        return Window(start, min(round_up(window.stop, self.stride), padded))


def _needed(spans: tuple[Span, ...], length: int) -> Window:
    """Pixels of an axis of `length` px that `spans` read, or that the padding mirrors."""
    start = min(span.read.start for span in spans)
    stop = max(span.read.stop for span in spans)
    if stop > length:
        mirrored = stop - length
        start = min(start, max(length - 1 - mirrored, 0))
    return Window(start, min(stop, length))
