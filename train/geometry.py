"""Where patches lie in their frames: flipped, turned, scaled and bent, by one interpolation.

Image, labels and what counts of them are all cut at the same points. A frame goes on beyond its
edges as its reflection, d c b a | a b c d | d c b a, or as one value, v v v v | a b c d | v v v v.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from train.policies import AugmentSettings, Range

GRID = 3  # points along a side of the elastic deformation's grid
STIFFNESS = 8  # parts of the grid's spacing that its sigma is at most one of

Shape = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """A patch's place: its pixel p shows the frame at `matrix @ (p + bend(p)) + origin`."""

    matrix: NDArray[np.float64]  # (2, 2)
    origin: NDArray[np.float64]  # (2,), frame px
    size: int  # side of the patch, px
    grid: NDArray[np.float64] | None = None  # (2, GRID, GRID), patch px; None: nothing is bent

    def points(self) -> NDArray[np.float64]:
        """Rows and columns of the frame that the patch's pixels show, (2, size, size)."""
        pixels = np.indices((self.size, self.size)).astype(np.float64)
        if self.grid is not None:
            # Ronneberger et al. 2015, section 3.1: bicubic between the points of a coarse grid.
            rows = _cubic(self.size)
            pixels += rows @ self.grid @ rows.T
        return np.tensordot(self.matrix, pixels, axes=1) + self.origin[:, None, None]

    def on(self, frame: Shape) -> Cut:
        """The patch of frames of shape (Y, X), ready to be cut."""
        return Cut(self.points(), frame)


class Cut:
    """Points of a patch in frames of one shape; reads only the window around them."""

    def __init__(self, points: NDArray[np.float64], frame: Shape) -> None:
        low = np.floor(points.min(axis=(1, 2))).astype(int)
        self._points = (points - low[:, None, None]).astype(np.float32)  # within the window
        # As rounded to float32, which may reach the next pixel; linear: one neighbour further.
        sides = np.floor(self._points.max(axis=(1, 2))).astype(int) + 2
        places = list(zip(low, low + sides, frame, strict=True))
        self._window = [_reflected(*place) for place in places]
        self._beyond = [_outside(*place) for place in places]
        self._width = int(sides[1])

    def nearest(self, plane: NDArray[Any], beyond: float | None = None) -> NDArray[Any]:
        """The patch of a plane (Y, X): the value of the nearest pixel, in the plane's dtype.

        `beyond` is the value outside the frame; None: its reflection. The same for `linear`.
        """
        rows, columns = (self._points + np.float32(0.5)).astype(np.int32)
        patch: NDArray[Any] = self._read(plane, beyond)[rows * self._width + columns]
        return patch

    def linear(self, plane: NDArray[Any], beyond: float | None = None) -> NDArray[np.float32]:
        """The patch of a plane (Y, X), float32, linear between the four pixels around each point.

        A point that lies on a pixel has its very value.
        """
        values = self._read(plane, beyond).astype(np.float32)
        at, (down, right) = self._corners
        top = _between(values, at, at + 1, right)
        below = _between(values, at + self._width, at + (self._width + 1), right)
        below -= top
        below *= down
        top += below
        return top

    @cached_property
    def _corners(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Index of the pixel above and left of each point; how far below and right it lies."""
        whole = self._points.astype(np.int32)
        return whole[0] * self._width + whole[1], self._points - whole.astype(np.float32)

    def _read(self, plane: NDArray[Any], beyond: float | None) -> NDArray[Any]:
        rows, columns = self._window
        window = np.ascontiguousarray(plane[rows][:, columns])
        if beyond is not None and any(outside.any() for outside in self._beyond):
            window = window.copy()
            window[self._beyond[0]] = beyond
            window[:, self._beyond[1]] = beyond
        return window.ravel()


def _between(
    values: NDArray[np.float32],
    first: NDArray[np.int32],
    second: NDArray[np.int32],
    share: NDArray[np.float32],
) -> NDArray[np.float32]:
    one, other = values[first], values[second]
    other -= one
    other *= share
    one += other
    return one


def _reflected(low: int, end: int, size: int) -> slice | NDArray[np.intp]:
    """The indices low..end-1 of an axis that goes on beyond 0..size-1 as its reflection."""
    if low >= 0 and end <= size:
        return slice(low, end)
    within = np.arange(low, end) % (2 * size)
    return np.minimum(within, 2 * size - 1 - within)


def _outside(low: int, end: int, size: int) -> NDArray[np.bool_]:
    """Which of the indices low..end-1 are not those of an axis of `size`."""
    index = np.arange(low, end)
    outside: NDArray[np.bool_] = (index < 0) | (index >= size)
    return outside


@lru_cache(maxsize=8)
def _cubic(size: int) -> NDArray[np.float64]:
    """Weights (size, GRID) of a grid's points for each pixel: a natural cubic spline."""
    grid = np.linspace(0, size - 1, GRID)
    spline = CubicSpline(grid, np.eye(GRID), bc_type="natural")
    return np.asarray(spline(np.arange(size)), dtype=np.float64)


def random_geometry(
    rng: np.random.Generator, frame: Shape, size: int, settings: AugmentSettings
) -> Geometry:
    """Flip, turn, scale, bend and place a patch of `size` px at random in a frame (Y, X)."""
    matrix = _random_turn(rng, settings)
    if rng.random() < settings.scale_chance:
        matrix = matrix / log_uniform(rng, settings.scale)
    bent = rng.random() < settings.elastic_chance
    sigma = min(settings.elastic, (size - 1) / (GRID - 1) / STIFFNESS)
    grid = rng.normal(0, sigma, (2, GRID, GRID)) if bent else None
    # The patch's centre stays far enough inside that, where the frame is large enough, an
    # unturned patch lies within it; what sticks out is reflected.
    half = math.hypot(*matrix[0]) * size / 2
    centre = [
        rng.uniform(half, side - half) if side > 2 * half else side / 2 + rng.uniform(-0.5, 0.5)
        for side in frame
    ]
    origin = np.array(centre) - 0.5 - matrix @ np.full(2, (size - 1) / 2)
    if np.array_equal(matrix, np.rint(matrix)):  # pixels lie on pixels, and stay what they are
        origin = np.rint(origin)
    return Geometry(matrix, origin, size, grid)


def _random_turn(rng: np.random.Generator, settings: AugmentSettings) -> NDArray[np.float64]:
    """A rotation, or one after a reflection, (2, 2)."""
    if rng.random() < settings.rotate_chance:
        limit = math.radians(settings.rotate)
        start = -limit if settings.rotate < 180 else 0.0  # all around: from where one begins
        angle = rng.uniform(start, start + 2 * limit)
        cos, sin = math.cos(angle), math.sin(angle)
    else:
        quarters = rng.integers(1, 4) if rng.random() < settings.turn_chance else 0
        cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters]
    flip = -1 if rng.random() < settings.flip_chance else 1
    if flip < 0 and settings.flip_axis == "either" and rng.random() < 0.5:
        cos, sin = -cos, -sin  # by half a turn, columns that are mirrored become rows
    return np.array([[cos, -sin * flip], [sin, cos * flip]], dtype=np.float64)


def log_uniform(rng: np.random.Generator, bounds: Range) -> float:
    """A number between two bounds, drawn evenly in its logarithm."""
    return math.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1])))
