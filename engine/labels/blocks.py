"""Labels of one block, ids from 1, and what tells which of them other blocks have as well.

    frame, cut        B sees `growth` px further
    A : B             A : B          # grown in B from a core that lies in A: a *foreign* label. Its
    c : # # . . .     c : # # . .    anchor is a pixel of that core. A has a label of its own there,
    c : # # . c c     c : # # . c    and keeps its seeds along its edges in strips, `growth` px deep

Labels that begin in a block are joined by the faces of their *seeds*: grown neighbours touch, and
are two. A foreign label is joined by its anchor. One is enough: what is left of its core is chained
by the faces of the blocks that it lies in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.labels.components import bands, label_part
from engine.labels.cores import Inside, Seeds, find_seeds
from engine.labels.holes import filled
from engine.labels.postprocessing import Postprocessing
from engine.labels.stitching import Faces, faces_of, strips_of

# Foreground, and cores where objects are found by them, (Y, X) both.
Masks = tuple[NDArray[np.bool_], NDArray[np.bool_] | None]


@dataclass(frozen=True)
class BlockLabels:
    """What a block's labels, from 1, have in common with those of other blocks."""

    count: int
    faces: Faces  # of components or seeds, see `engine.labels.stitching`; T is 1
    strips: Faces  # of seeds; empty where no label can be foreign
    foreign: NDArray[np.int64]  # (m,): labels that begin in other blocks
    anchors: NDArray[np.int64]  # (m, 3): Z, Y, X of a core pixel of each, from the block's first

    @classmethod
    def of_components(
        cls, labels: NDArray[np.uint32], count: int, *, connect_z: bool
    ) -> BlockLabels:
        """Those of components, (Z, Y, X): all of them begin in the block."""
        faces = faces_of(labels[None], connect_z=connect_z)
        return cls(count, faces, {}, np.zeros(0, np.int64), np.zeros((0, 3), np.int64))


def label_block(
    planes: Mapping[int, Masks],
    inside: Inside | None,
    postprocessing: Postprocessing,
    out: NDArray[np.uint32],
    *,
    connect_z: bool,
) -> BlockLabels:
    """Label the objects of a block into `out`, (Z, Y, X).

    `planes` are foreground and, by cores, cores, (Y, X), as thresholds gave them, by place along Z;
    those that were set aside are not among them. They have `postprocessing.margin` px around the
    block, as far as the frame goes; the block is what is `inside`.
    """
    if planes and inside is not None and postprocessing.instances == "cores":
        seeds = {
            z: find_seeds(mask, core, postprocessing, inside)
            for z, (mask, core) in planes.items()
            if core is not None
        }
        return _by_cores(seeds, inside, postprocessing.growth, out, connect_z=connect_z)
    mask = np.zeros(out.shape, dtype=bool)
    for z, (plane, _) in planes.items():
        mask[z] = filled(plane, postprocessing)
    count = label_part(mask, out, connect_z=connect_z)
    return BlockLabels.of_components(out, count, connect_z=connect_z)


def _by_cores(
    seeds: Mapping[int, Seeds],
    inside: Inside,
    growth: int,
    out: NDArray[np.uint32],
    *,
    connect_z: bool,
) -> BlockLabels:
    """Label and grow the seeds of each plane, by place along Z."""
    shape = next(iter(seeds.values())).mask.shape
    mask = np.zeros((len(out), *shape), dtype=bool)
    for z, one in seeds.items():
        mask[z] = one.mask
    labels = np.empty(mask.shape, dtype=np.uint32)
    count = label_part(mask, labels, connect_z=connect_z)
    own = labels[:, *inside]
    faces = faces_of(own[None], connect_z=connect_z)
    has_margin = own.shape != labels.shape
    strips = strips_of(own[None], growth) if has_margin else {}
    begins = _present(own, count)
    for z, one in seeds.items():
        one.grow(labels[z])
    there = _present(own, count)
    foreign = np.flatnonzero(there & ~begins)
    anchors = _anchors(labels, inside, foreign, count)
    new = (np.cumsum(there) * there).astype(np.uint32)
    for target, band in zip(_bands(out), _bands(own), strict=True):
        target[...] = new[band]
    return BlockLabels(
        int(there.sum()),
        {name: new[face] for name, face in faces.items()},
        {name: new[strip] for name, strip in strips.items()},
        new[foreign].astype(np.int64),
        anchors,
    )


def _present(labels: NDArray[np.uint32], count: int) -> NDArray[np.bool_]:
    """Which labels there are, (count + 1,); not the background."""
    there = np.zeros(count + 1, dtype=bool)
    for band in _bands(labels):
        there[band] = True
    there[0] = False
    return there


def _bands(labels: NDArray[np.uint32]) -> Iterator[NDArray[np.uint32]]:
    """Views of a few rows each, (Y, X), plane by plane of (Z, Y, X)."""
    return (band for plane in labels for band in bands(plane))


def _anchors(
    labels: NDArray[np.uint32], inside: Inside, foreign: NDArray[np.intp], count: int
) -> NDArray[np.int64]:
    """A pixel outside of the block of each foreign label, (m, 3); nothing is grown there."""
    if not len(foreign):
        return np.zeros((0, 3), np.int64)
    is_foreign = np.zeros(count + 1, dtype=bool)
    is_foreign[foreign] = True
    outside = is_foreign[labels]
    outside[:, *inside] = False
    pixels = np.flatnonzero(outside)
    place = np.zeros(count + 1, dtype=np.int64)
    place[labels.reshape(-1)[pixels]] = pixels
    found = np.stack(np.unravel_index(place[foreign], labels.shape), axis=1)
    return found - (0, inside[0].start, inside[1].start)
