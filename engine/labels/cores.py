"""Objects by cores: components of cores, each grown inside the foreground by a few pixels.

    foreground    core          labels         A core is the inside of an object, so that cores of
    # # # # # #   . # . . # .   1 1 1 2 2 2    objects that touch do not touch. Each pixel of the
    # # # # # #   . # . . # .   1 1 1 2 2 2    foreground takes the label of the nearest core
    # # # # # #   . . . . . .   1 1 1 2 2 2    pixel within `growth` px.

    masks     holes that fit into a box of `pinhole` px are filled in both, see
              `engine.labels.holes`; a core is what of the mask of cores lies in the foreground
    seeds     the components of all cores. "keep": those of cores and of the foreground that no
              core reaches, together; "drop": what no core reaches is background
    growth    the nearest by Euclidean distance; of several equally near the one whose offset from
              the pixel comes first in the order of (dy, dx)

Nothing depends on what is further away than `Postprocessing.margin` but the components: that makes
labels exact where frames are cut, since components are what stitching joins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.labels.components import label_frame
from engine.labels.holes import filled
from engine.labels.postprocessing import Postprocessing
from engine.labels.runs import places_of

Inside = tuple[slice, slice]  # rows and columns of a plane
LARGEST_TABLE = 7  # px of growth; its 148 offsets fit a byte, and its tables take 0.5 MB


@dataclass(frozen=True)
class Seeds:
    """Where the labels of a plane begin, and from where its further pixels take theirs."""

    mask: NDArray[np.bool_]  # (Y, X): cores, and foreground that none reaches where that is kept
    grown: NDArray[np.intp]  # (n,): flat indices of the further pixels of objects
    nearest: NDArray[np.intp]  # (n,): of each, that of the core pixel whose label it takes

    def grow(self, labels: NDArray[np.uint32]) -> None:
        """Label the further pixels of a plane whose seeds are labelled, C-contiguous, in place."""
        flat = labels.reshape(-1)
        flat[self.grown] = flat[self.nearest]


def label_cores(
    foreground: NDArray[np.bool_], core: NDArray[np.bool_], postprocessing: Postprocessing
) -> tuple[NDArray[np.uint32], int]:
    """Label the objects of a whole frame, masks (Y, X), as uint32; and their number.

    Ids count in raster order of the first pixels of seeds.
    """
    seeds = find_seeds(foreground, core, postprocessing)
    labels, count = label_frame(seeds.mask)
    seeds.grow(labels)
    return labels, count


def find_seeds(
    foreground: NDArray[np.bool_],
    core: NDArray[np.bool_],
    postprocessing: Postprocessing,
    inside: Inside | None = None,
) -> Seeds:
    """The seeds of a plane, from masks (Y, X) as thresholds gave them.

    Of a window with a margin, `inside` is what it is there for: only there does anything grow or
    count as not reached, and cores that reach nothing of it are no seeds.
    """
    growth = postprocessing.growth
    foreground = filled(foreground, postprocessing)
    core = filled(core, postprocessing) & foreground
    ungrown = foreground & ~core
    if inside is not None:
        core = _within(
            core, tuple(slice(max(s.start - growth, 0), s.stop + growth) for s in inside)
        )
        ungrown = _within(ungrown, inside)
    grown, nearest, unreached = _nearest(places_of(ungrown.reshape(-1)), core, growth)
    if postprocessing.unreached == "keep":
        core.reshape(-1)[unreached] = True
    return Seeds(core, grown, nearest)


def _within(mask: NDArray[np.bool_], window: tuple[slice, ...]) -> NDArray[np.bool_]:
    """A mask, (Y, X), without what lies outside of a window."""
    kept = np.zeros_like(mask)
    kept[window] = mask[window]
    return kept


def _nearest(
    pixels: NDArray[np.intp], core: NDArray[np.bool_], radius: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Pixels that have a core pixel within `radius` px, the nearest of each, and those without.

    All are flat indices in `core`, (Y, X).
    """
    width = core.shape[1]
    row = width + radius  # what is left of a row is what is right of the one above
    top = radius + 1
    padded = np.zeros((core.shape[0] + 2 * top, row), dtype=bool)
    padded[top : top + core.shape[0], :width] = core
    places = pixels + pixels // width * radius  # of pixels in such rows, from the first of `core`
    find = _by_tables if radius <= LARGEST_TABLE else _one_by_one
    rank = find(padded.reshape(-1), row, places, radius)
    offsets = np.array([dy * width + dx for dy, dx in _offsets(radius)])
    reached = rank < len(offsets)
    grown = pixels[reached]
    return grown, grown + offsets[rank[reached]], pixels[~reached]


def _one_by_one(
    padded: NDArray[np.bool_], row: int, places: NDArray[np.intp], radius: int
) -> NDArray[np.intp]:
    """Number of the first offset at which each place, (n,), has a core; else that of offsets.

    Offsets are tried from the nearest on, on what is left: most lie near a core.
    """
    rank = np.full(len(places), len(_offsets(radius)))
    left = np.arange(len(places))
    for number, (dy, dx) in enumerate(_offsets(radius)):
        reached = padded[places[left] + ((radius + 1 + dy) * row + dx)]
        rank[left[reached]] = number
        left = left[~reached]
    return rank


def _by_tables(
    padded: NDArray[np.bool_], row: int, places: NDArray[np.intp], radius: int
) -> NDArray[np.uint8]:
    """The same as `_one_by_one`, by what stands in each row of the offsets' box.

    Of every pixel, the cores within `radius` px along its row are the bits of a number. For each
    row of the box around a place, a table tells the first offset that has a core there.
    """
    bits = 2 * radius + 1
    # In bit k, what is k px ahead.
    ahead: NDArray[Any] = padded.astype(np.uint8 if bits <= 8 else np.uint16)
    known = 1
    while known < bits:
        more = min(known, bits - known)
        # By a product: NumPy shifts one number at a time.
        ahead[:-more] |= ahead[more:] * ahead.dtype.type(1 << more)
        known += more
    rank = np.full(len(places), len(_offsets(radius)), dtype=np.uint8)
    for dy, table in zip(range(-radius, radius + 1), _tables(radius), strict=True):
        windows = ahead[(radius + 1 + dy) * row - radius :]
        np.minimum(rank, table.take(windows.take(places)), out=rank)
    return rank


@lru_cache
def _tables(radius: int) -> tuple[NDArray[np.uint8], ...]:
    """For each dy the number of the first offset among those that bits name, see `_by_tables`."""
    number = {offset: i for i, offset in enumerate(_offsets(radius))}
    none = len(number)
    tables = []
    for dy in range(-radius, radius + 1):
        table = np.full(1, none, dtype=np.uint8)
        for dx in range(-radius, radius + 1):
            with_it = np.minimum(table, np.uint8(number.get((dy, dx), none)))
            table = np.concatenate([table, with_it])
        tables.append(table)
    return tuple(tables)


@lru_cache
def _offsets(radius: int) -> tuple[tuple[int, int], ...]:
    """Offsets (dy, dx) of at most `radius` px, but for (0, 0), in the order of their trial."""
    span = range(-radius, radius + 1)
    near = ((dy * dy + dx * dx, dy, dx) for dy in span for dx in span)
    return tuple((dy, dx) for square, dy, dx in sorted(near) if 0 < square <= radius * radius)
