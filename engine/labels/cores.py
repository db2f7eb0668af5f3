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

import numpy as np
from numpy.typing import NDArray

from engine.compiled import compiled
from engine.labels.components import label_frame
from engine.labels.holes import filled
from engine.labels.postprocessing import Postprocessing
from engine.labels.runs import runs_of

Inside = tuple[slice, slice]  # rows and columns of a plane


@dataclass(frozen=True)
class Seeds:
    """Where the labels of a plane begin, and from where its further pixels take theirs."""

    mask: NDArray[np.bool_]  # (Y, X): cores, and foreground that none reaches where that is kept
    grown: NDArray[np.int64]  # (n,): flat indices of the further pixels of objects
    nearest: NDArray[np.int64]  # (n,): of each, that of the core pixel whose label it takes

    def grow(self, labels: NDArray[np.uint32]) -> None:
        """Label the further pixels of a plane whose seeds are labelled, C-contiguous, in place."""
        _take(labels.reshape(-1), self.grown, self.nearest)


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
    if inside is None:
        ungrown = foreground & ~core
    else:
        core = _within(
            core, tuple(slice(max(s.start - growth, 0), s.stop + growth) for s in inside)
        )
        ungrown = _within(foreground & ~core, inside)
    further = runs_of(ungrown)
    grown, nearest, unreached = nearest_cores(
        further.row, further.start, further.stop, core, growth
    )
    if postprocessing.unreached == "keep":
        core.reshape(-1)[unreached] = True
    return Seeds(core, grown, nearest)


def _within(mask: NDArray[np.bool_], window: tuple[slice, ...]) -> NDArray[np.bool_]:
    """A mask, (Y, X), without what lies outside of a window."""
    kept = np.zeros_like(mask)
    kept[window] = mask[window]
    return kept


@compiled
def nearest_cores(
    row: NDArray[np.int32],
    start: NDArray[np.int32],
    stop: NDArray[np.int32],
    core: NDArray[np.bool_],
    radius: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pixels that have a core pixel within `radius` px, the nearest of each, and those without.

    All are flat indices in `core`, (Y, X); the pixels are given by runs of them.
    """
    height, width = core.shape
    along = _along_rows(core, radius)
    most = (stop - start).sum()
    reached, nearest = np.empty(most, np.int64), np.empty(most, np.int64)
    unreached = np.empty(most, np.int64)
    n = beyond = 0
    for run in range(len(row)):
        y = int(row[run])
        for x in range(start[run], stop[run]):
            least, at = radius * radius + 1, -1
            for away in range(radius + 1):
                if away * away > least:
                    break
                if y >= away:
                    dx = int(along[y - away, x])
                    square = away * away + dx * dx
                    # Of two as near that which is further up.
                    if square < least or (square == least and at >= 0):
                        least, at = square, (y - away) * width + x + dx
                if y + away < height:
                    dx = int(along[y + away, x])
                    square = away * away + dx * dx
                    if square < least:
                        least, at = square, (y + away) * width + x + dx
            if at >= 0:
                reached[n], nearest[n] = y * width + x, at
                n += 1
            else:
                unreached[beyond] = y * width + x
                beyond += 1
    return reached[:n].copy(), nearest[:n].copy(), unreached[:beyond].copy()


@compiled
def _along_rows(core: NDArray[np.bool_], radius: int) -> NDArray[np.int16]:
    """How far ahead the nearest core pixel of its row is, (Y, X): below 0 it is behind.

    Of two as near that behind; beyond `radius` px none.
    """
    height, width = core.shape
    none = np.int16(radius + 1)
    found = np.full(core.shape, none, np.int16)
    for y in range(height):
        stop, x = 0, 0
        while x < width:
            if not core[y, x]:
                x += 1
                continue
            for k in range(1, min(radius, x - stop) + 1):
                if k < abs(found[y, x - k]):
                    found[y, x - k] = k
            while x < width and core[y, x]:
                found[y, x] = 0
                x += 1
            stop = x
            for k in range(1, min(radius, width - stop + 1) + 1):
                if stop - 1 + k < width and not core[y, stop - 1 + k]:
                    found[y, stop - 1 + k] = -k
                else:
                    break
    return found


@compiled
def _take(labels: NDArray[np.uint32], to: NDArray[np.int64], of: NDArray[np.int64]) -> None:
    """Give pixels (n,) the labels of others, by flat indices."""
    for i in range(len(to)):
        labels[to[i]] = labels[of[i]]
