"""Random variation of patches: where they are cut, and how their intensities are changed.

Geometry acts on raw pixels and labels alike; intensities are varied after normalisation, in units
of the frame's own range. Everything is drawn from the generator that is handed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import expand_labels

from train.settings import AugmentSettings, Range

LIGHT = 5.0  # px beyond its outline to which an object's light is its own


@dataclass(frozen=True)
class Geometry:
    """A patch's place in its frame: output pixel p shows the frame at `matrix @ p + origin`."""

    matrix: NDArray[np.float64]  # (2, 2)
    origin: NDArray[np.float64]  # (2,)
    size: int  # side of the patch, px

    def cut(self, plane: NDArray[Any], order: int, mode: str) -> NDArray[Any]:
        """The patch (size, size) of a plane (Y, X); `order` 0 nearest, 1 linear."""
        patch: NDArray[Any] = ndimage.affine_transform(
            plane,
            self.matrix,
            offset=self.origin,
            output_shape=(self.size, self.size),
            order=order,
            mode=mode,
        )
        return patch


def random_geometry(
    rng: np.random.Generator, frame: tuple[int, int], size: int, settings: AugmentSettings
) -> Geometry:
    """Flip, turn, scale and place a patch of `size` px at random in a frame (Y, X)."""
    turn = rng.uniform(0, 2 * math.pi) if settings.rotate else rng.integers(4) * math.pi / 2
    flip = rng.choice([-1.0, 1.0])
    step = 1 / _log_uniform(rng, settings.scale)  # frame px per patch px
    cos, sin = math.cos(turn), math.sin(turn)
    matrix = step * np.array([[cos, -sin * flip], [sin, cos * flip]])
    # The patch's centre stays far enough inside that, where the frame is large enough, an
    # unturned patch lies within it; what sticks out is reflected.
    half = step * size / 2
    centre = [
        rng.uniform(half, side - half) if side > 2 * half else side / 2 + rng.uniform(-0.5, 0.5)
        for side in frame
    ]
    origin = np.array(centre) - 0.5 - matrix @ np.full(2, (size - 1) / 2)
    return Geometry(matrix, origin, size)


def vary_intensity(
    image: NDArray[np.float32],
    foreground: NDArray[np.bool_],
    rng: np.random.Generator,
    settings: AugmentSettings,
) -> NDArray[np.float32]:
    """Change a normalised patch (C, Y, X) as another microscope might have.

    In the order in which light meets them: the objects' own brightness, blur, response (gamma,
    gain, offset), noise. `foreground` (Y, X) says where objects are.
    """
    if rng.random() < settings.object_gain_chance:
        image = _vary_objects(image, foreground, rng, settings.object_gain)
    if rng.random() < settings.blur_chance:
        image = ndimage.gaussian_filter(image, (0, *[rng.uniform(0, settings.blur)] * 2))
    gamma = _log_uniform(rng, settings.gamma)
    image = np.where(image > 0, np.abs(image) ** gamma, image)
    image = image * _log_uniform(rng, settings.gain)
    image = image + rng.uniform(-settings.offset, settings.offset)
    if rng.random() < settings.noise_chance:
        sigma = _log_uniform(rng, settings.noise)
        image = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(image, dtype=np.float32)


def _vary_objects(
    image: NDArray[np.float32],
    foreground: NDArray[np.bool_],
    rng: np.random.Generator,
    gains: Range,
) -> NDArray[np.float32]:
    """Scale each object's contrast against the background by a factor of its own."""
    objects, count = ndimage.label(foreground, structure=np.ones((3, 3)))
    if not count or foreground.all():
        return image
    factors = np.concatenate(
        [[1.0], np.exp(rng.uniform(math.log(gains[0]), math.log(gains[1]), count))]
    )
    # An object's blurred rim lies beyond its outline and is dimmed alike: left bright, it would
    # ring the object and teach outlines that lie inside the visible edge.
    lit = expand_labels(objects, LIGHT)
    gain = ndimage.gaussian_filter(factors[lit].astype(np.float32), LIGHT / 3)
    background = np.median(image[:, ~foreground], axis=1)[:, None, None]
    return np.asarray(background + (image - background) * gain, dtype=np.float32)


def _log_uniform(rng: np.random.Generator, bounds: Range) -> float:
    return math.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1])))
