"""Objects by cores, told once more on a whole frame, the slow and plain way: the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.labels.postprocessing import Postprocessing

Mask = NDArray[np.bool_]


def filled(mask: Mask, side: int) -> Mask:
    """Holes that fit into a box of `side` px, filled one by one."""
    out = mask.copy()
    background = ndimage.label(~mask)[0]
    for number, (y, x) in enumerate(ndimage.find_objects(background), start=1):
        fits = y.stop - y.start <= side and x.stop - x.start <= side
        inside = y.start > 0 and x.start > 0 and (y.stop, x.stop) < mask.shape
        if fits and inside and y.stop < mask.shape[0] and x.stop < mask.shape[1]:
            out[background == number] = True
    return out


def plain_objects(
    foreground: Mask, core: Mask, how: Postprocessing, *, connect_z: bool = False
) -> NDArray[Any]:
    """Labels of masks (Z, Y, X), as yet in no order and with nothing dropped for its area."""
    foreground = np.stack([filled(plane, how.pinhole) for plane in foreground])
    core = np.stack([filled(plane, how.pinhole) for plane in core]) & foreground
    distance = np.stack([
        ndimage.distance_transform_edt(~plane) if plane.any() else np.full(plane.shape, np.inf)
        for plane in core
    ])  # fmt: skip
    reached = foreground & (distance <= how.growth + 1e-6)
    seeds = core | (foreground & ~reached) if how.unreached == "keep" else core
    structure = np.zeros((3, 3, 3), int)
    structure[slice(None) if connect_z else 1] = 1
    labels = ndimage.label(seeds, structure)[0]
    out = labels.copy()
    for z, y, x in np.argwhere(reached & ~core):
        cores = np.argwhere(core[z]) - (y, x)
        square = (cores**2).sum(axis=1)
        dy, dx = min(map(tuple, cores[square == square.min()].tolist()))
        out[z, y, x] = labels[z, y + dy, x + dx]
    return out
