"""Random variation of a patch's intensities, after normalisation, in units of its frame's range.

Everything is drawn from the generator that is handed in. `geometry` says where patches lie.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import expand_labels

from train.geometry import log_uniform
from train.policies import AugmentSettings, Range

LIGHT = 5.0  # px beyond its outline to which an object's light is its own


def vary_intensity(
    image: NDArray[np.float32],
    labels: NDArray[Any],
    rng: np.random.Generator,
    settings: AugmentSettings,
) -> NDArray[np.float32]:
    """Change a normalised patch (C, Y, X) as another microscope might have; returns another array.

    In the order in which light meets them: the objects' own brightness, blur, response (gamma,
    gain, offset), noise. `labels` (Y, X) say where objects are.
    """
    if rng.random() < settings.object_gain_chance:
        image = _vary_objects(image, labels, rng, settings.object_gain)
    if rng.random() < settings.blur_chance:
        image = ndimage.gaussian_filter(image, (0, *[rng.uniform(0, settings.blur)] * 2))
    image = image.copy()
    if rng.random() < settings.gamma_chance:
        gamma = np.float32(log_uniform(rng, settings.gamma))
        image = np.maximum(image, 0) ** gamma + np.minimum(image, 0)
    if rng.random() < settings.gain_chance:
        image *= log_uniform(rng, settings.gain)
    if rng.random() < settings.offset_chance:
        image += rng.uniform(-settings.offset, settings.offset)
    if rng.random() < settings.noise_chance:
        sigma = log_uniform(rng, settings.noise)
        image += sigma * rng.standard_normal(image.shape, dtype=np.float32)
    return image


def background(image: NDArray[np.float32], labels: NDArray[Any]) -> NDArray[np.float32]:
    """The median of each channel (C, 1, 1) of a patch (C, Y, X) where no object is; some must."""
    level: NDArray[np.float32] = np.median(image[:, labels == 0], axis=1)
    return level[:, None, None]


def _vary_objects(
    image: NDArray[np.float32], labels: NDArray[Any], rng: np.random.Generator, gains: Range
) -> NDArray[np.float32]:
    """Scale each object's contrast against the background by a factor of its own."""
    if not labels.any() or labels.all():
        return image
    factors = np.ones(int(labels.max()) + 1, dtype=np.float32)
    low, high = np.log(gains)
    factors[1:] = np.exp(rng.uniform(low, high, len(factors) - 1))
    # An object's blurred rim lies beyond its outline and is dimmed alike: left bright, it would
    # ring the object and teach outlines that lie inside the visible edge.
    gain = ndimage.gaussian_filter(factors[expand_labels(labels, LIGHT)], LIGHT / 3)
    dark = background(image, labels)
    return np.asarray(dark + (image - dark) * gain, dtype=np.float32)
