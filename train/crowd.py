"""More neighbours: objects of a patch's own mirror images, laid over it where there is room.

    . . a a .     . b b . .     . b a a .     Objects that touch are rare in many data sets, and
    . . a a .  +  . b b . .  =  . b a a .     they are what a network gets wrong first.

An object that would cover more of another than two that touch do is left out. Light adds up, as
that of fluorescent objects does with what is out of focus above them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import expand_labels

from train.augment import LIGHT, background

MOST = 3  # mirror images that are laid over a patch
OVERLAP = 0.15  # largest share of an object's pixels that may be another's already


def crowd(
    image: NDArray[np.float32],
    labels: NDArray[Any],
    counted: NDArray[np.bool_],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """A square patch, (C, Y, X) normalised, and its labels, (Y, X), with more objects.

    `counted` (Y, X) says where the truth is known; what is not known in full is not laid over.
    Pixels that are an object's stay that object's.
    """
    if not labels.any() or labels.all():
        return image, labels
    whole = np.where(np.isin(labels, labels[~counted]), 0, labels)
    # Of an object that is left out the light is left out as well.
    owner = expand_labels(labels, LIGHT)
    light = image - background(image, labels)
    # Of the eight ways in which a square lies on itself, all but the first are others.
    for turn in rng.permutation(np.arange(1, 8))[: rng.integers(1, MOST + 1)]:
        laid = _with_room(_turned(whole, turn), labels)
        own = _turned(owner, turn)
        share = ndimage.gaussian_filter(np.isin(own, laid[laid > 0]).astype(np.float32), LIGHT / 3)
        image = image + _turned(light, turn) * share
        labels = np.where((laid > 0) & (labels == 0), laid + labels.max(), labels)
    return image, labels


def _with_room(others: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    """Those of some objects, (Y, X), that hardly lie over labels, (Y, X); 0 elsewhere."""
    areas = np.bincount(others.reshape(-1))
    over = np.bincount(others[labels > 0], minlength=len(areas))
    fits = over <= OVERLAP * areas
    fits[0] = False
    return np.where(fits[others], others, 0)


def _turned(values: NDArray[Any], turn: int) -> NDArray[Any]:
    """Values (..., Y, X) of a square, turned by quarters and from 4 on mirrored as well."""
    quarters = np.rot90(values, turn % 4, axes=(-2, -1))
    return quarters[..., ::-1] if turn >= 4 else quarters
