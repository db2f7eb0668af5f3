"""Labels of blocks become labels of the whole: contacts over faces, a union-find, final ids.

    block A      | block B          A and B are labelled by themselves, from 1. Objects that touch
       1 1 1     | 1 1              across the face, corners included, are one: A's 1 and B's 1,
    2        3   |     2            and A's 3 and B's 1. The whole has three objects here; ids
           3     |                  count up in raster order of each object's first pixel.

Nothing here knows files. Ids of a stitch group are made unique by an offset for each block; only
those that touch a face take part in the union-find, so that its size follows from the faces.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Offset = tuple[int, int, int]  # along Z, Y, X: where the neighbour lies
Position = tuple[int, int, int, int]  # along T, Z, Y, X
Faces = Mapping[str, NDArray[np.uint32]]  # labels by side, "y0" and so on; see `faces_of`

# Half of the 26 neighbours, so that each pair of blocks occurs once.
_STEPS = (-1, 0, 1)
FORWARD: tuple[Offset, ...] = tuple(
    offset for offset in itertools.product(_STEPS, _STEPS, _STEPS) if offset > (0, 0, 0)
)


def forward_offsets(*, connect_z: bool) -> tuple[Offset, ...]:
    """Where those neighbours lie that a block may share objects with, each pair once."""
    return tuple(o for o in FORWARD if connect_z or o[0] == 0)


def faces_of(labels: NDArray[np.uint32], *, connect_z: bool) -> Faces:
    """Copies of the outer planes of a block's labels, (T, Z, Y, X).

    "y0" and "y1" are its first and last rows, (T, Z, X); "x0", "x1" (T, Z, Y); "z0", "z1"
    (T, Y, X), where labels connect along Z.
    """
    faces = {
        "y0": labels[:, :, 0, :],
        "y1": labels[:, :, -1, :],
        "x0": labels[:, :, :, 0],
        "x1": labels[:, :, :, -1],
    }
    if connect_z:
        faces |= {"z0": labels[:, 0], "z1": labels[:, -1]}
    return {name: face.copy() for name, face in faces.items()}


def strips_of(labels: NDArray[np.uint32], thickness: int) -> Faces:
    """Copies of the outer `thickness` rows and columns of a block's labels, (T, Z, Y, X).

    Named as faces are. Where the block is thinner, they are all of it.
    """
    return {
        "y0": labels[:, :, :thickness].copy(),
        "y1": labels[:, :, -thickness:].copy(),
        "x0": labels[:, :, :, :thickness].copy(),
        "x1": labels[:, :, :, -thickness:].copy(),
    }


def labels_at(strips: Faces, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels of a block at places (n, 4) along T, Z, Y, X, from its strips; 0 beyond them."""
    found = np.zeros(len(places), dtype=np.int64)
    sizes = {2: strips["x0"].shape[2], 3: strips["y0"].shape[3]}
    for name, axis in (("y0", 2), ("y1", 2), ("x0", 3), ("x1", 3)):
        strip, at = strips[name], places.copy()
        if name.endswith("1"):
            at[:, axis] -= sizes[axis] - strip.shape[axis]
        there = (at[:, axis] >= 0) & (at[:, axis] < strip.shape[axis])
        found[there] = strip[tuple(at[there].T)]
    return found


def facing_neighbours(position: Position, grid: Position, connect_z: bool) -> Iterator[str]:
    """Names of a block's faces behind which there is another block, by its place in the grid."""
    axes = "zyx" if connect_z else "yx"
    for axis in axes:
        at, size = (values["tzyx".index(axis)] for values in (position, grid))
        if at > 0:
            yield f"{axis}0"
        if at < size - 1:
            yield f"{axis}1"


def contacts(a: Faces, b: Faces, offset: Offset, *, connect_z: bool) -> NDArray[np.int64]:
    """Which labels of block `a` touch which of block `b`, which lies at `offset` from it.

    Returns pairs of local ids, int64 of shape (n, 2), each once. Two pixels touch where no
    coordinate differs by more than 1 (8-neighbourhood; 26 where labels connect along Z).
    """
    left, free = _facing(a, offset, connect_z=connect_z)
    right, _ = _facing(b, (-offset[0], -offset[1], -offset[2]), connect_z=connect_z)
    found = []
    for shifts in itertools.product(*((-1, 0, 1) if f else (0,) for f in free)):
        here = tuple(slice(max(-s, 0), n - max(s, 0)) for s, n in _lengths(shifts, left))
        there = tuple(slice(max(s, 0), n - max(-s, 0)) for s, n in _lengths(shifts, left))
        first, second = left[here], right[there]
        both = (first > 0) & (second > 0)
        keys = first[both].astype(np.uint64) << np.uint64(32) | second[both]
        found.append(np.unique(keys))
    keys = np.unique(np.concatenate(found))
    low = keys & np.uint64(0xFFFFFFFF)
    return np.stack([keys >> np.uint64(32), low], axis=1).astype(np.int64)


def of_one_class(
    pairs: NDArray[np.int64], of_a: NDArray[np.uint8], of_b: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Those of `contacts` whose labels are of one class: objects of two touch, and stay two.

    `of_a` and `of_b` are the classes of the labels of each block, (n,).
    """
    same: NDArray[np.bool_] = of_a[pairs[:, 0] - 1] == of_b[pairs[:, 1] - 1]
    return pairs[same]


def _lengths(shifts: tuple[int, ...], array: NDArray[Any]) -> Iterator[tuple[int, int]]:
    return zip(shifts, array.shape, strict=True)


def _facing(
    faces: Faces, offset: Offset, *, connect_z: bool
) -> tuple[NDArray[np.uint32], tuple[bool, ...]]:
    """The pixels of a block that face a neighbour; and along which axes pixels may also shift.

    The first axis is T, along which nothing connects; nor does it along Z unless asked for.
    """
    z, y, x = offset
    last = {1: "1", -1: "0"}
    if z:
        face = faces["z" + last[z]]  # (T, Y, X)
        axes = [(y, True), (x, True)]
    elif y:
        face = faces["y" + last[y]]  # (T, Z, X)
        axes = [(0, connect_z), (x, True)]
    else:
        face = faces["x" + last[x]]  # (T, Z, Y)
        axes = [(0, connect_z), (0, True)]
    index: list[Any] = [slice(None)]
    free = [False]
    for step, may_shift in axes:
        index.append({1: -1, -1: 0, 0: slice(None)}[step])
        if not step:
            free.append(may_shift)
    return face[tuple(index)], tuple(free)


@dataclass(frozen=True)
class Joined:
    """Which provisional ids of a stitch group are one object; ids without a contact stand alone."""

    ids: NDArray[np.int64]  # those that touch another block's, ascending
    group: NDArray[np.int64]  # of each, a number from 0
    n_groups: int

    def group_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Group of each id, -1 for those that stand alone."""
        if not len(self.ids):
            return np.full(len(ids), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[place] == ids, self.group[place], -1)


def join(pairs: NDArray[np.int64]) -> Joined:
    """Union-find over `pairs`, (n, 2), of ids that are unique in the stitch group."""
    # Of no use to whole frames, and 0.1 s to import.
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    ids, inverse = np.unique(pairs, return_inverse=True)
    edges = inverse.reshape(-1, 2)
    size = (len(ids), len(ids))
    graph = sparse.coo_matrix((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), size)
    n_groups, group = connected_components(graph, directed=False) if len(ids) else (0, ids)
    return Joined(ids, group.astype(np.int64), int(n_groups))


class FinalIds:
    """Gives ids row by row of blocks, in raster order of first pixels, from 1 in each scope."""

    def __init__(
        self,
        joined: Joined,
        group_first: NDArray[np.int64],
        group_kept: NDArray[np.bool_],
    ) -> None:
        """`group_first`: raster position of each group's first pixel; `group_kept`: which stay."""
        self._joined = joined
        self._first, self._kept = group_first, group_kept
        self._group_ids = np.zeros(joined.n_groups, dtype=np.int64)
        self._next: dict[int, int] = {}  # by scope

    @property
    def total(self) -> int:
        """Objects in all scopes so far."""
        return sum(self._next.values())

    def of_groups(self, group: NDArray[np.int64]) -> NDArray[np.int64]:
        """Final ids of groups; 0 for those dropped, or whose row is still to come."""
        found: NDArray[np.int64] = self._group_ids[group]
        return found

    def row(
        self,
        ids: NDArray[np.int64],
        first: NDArray[np.int64],
        kept: NDArray[np.bool_],
        scope: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Final id of each provisional one in a row of blocks; 0 where the object is dropped.

        `first` and `kept` are those of the piece within its block, and count where it stands alone.
        Rows must be given in order.
        """
        group = self._joined.group_of(ids)
        alone = group < 0
        if self._joined.n_groups:
            first = np.where(alone, first, self._first[group])
            kept = np.where(alone, kept, self._kept[group])
        known = np.where(alone, 0, self._group_ids[group]) if self._joined.n_groups else 0 * ids
        # Every piece of a group holds the group's first pixel, so that duplicates sort together.
        new = np.flatnonzero(kept & (known == 0))
        order = new[np.lexsort((first[new], scope[new]))]
        change = np.ones(len(order), dtype=bool)
        change[1:] = (first[order][1:] != first[order][:-1]) | (
            scope[order][1:] != scope[order][:-1]
        )
        rank = np.cumsum(change)  # from 1 over all scopes of this row
        out = np.asarray(known).copy()
        for one in np.unique(scope[order]):
            inside = scope[order] == one
            start = self._next.get(int(one), 0)
            given = rank[inside] - rank[inside][0] + 1 + start
            out[order[inside]] = given
            self._next[int(one)] = int(given[-1])
        if self._joined.n_groups:
            self._group_ids[group[~alone]] = out[~alone]
        return out
