"""Stacks kept as equal units: the pages of a TIFF, the files of a folder.

    source array   lead dimensions | dimensions inside a unit
    TIFF, T C Y X          T    C  | Y X         one page per (t, c)
    folder of RGB files    T       | Y X C       one file per t

Unit n is the n-th in C order of the lead dimensions.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameError
from engine.stacks.base import AxesMap, Stack, StackInfo, bounds
from engine.stacks.guard import reading

MAX_PLANE_BYTES = 1 << 42  # 4 TiB: beyond any microscope, and within what damaged headers claim


def frame_name(info: StackInfo, t: int, z: int) -> str:
    """The frame as people call it: "frame t=3", with z where the stack has one."""
    return f"frame t={t}, z={z}" if "Z" in info.axes else f"frame t={t}"


def check_frame(info: StackInfo, t: int, z: int, channels: Sequence[int]) -> None:
    """FrameError where the stack has no such frame or channel."""
    wanted = [("T", t), ("Z", z), *(("C", c) for c in channels)]
    for axis, at in wanted:
        if not 0 <= at < info.size(axis):
            raise FrameError(
                f"{info.path}: has no {axis.lower()}={at}: its size along {axis} is "
                f"{info.size(axis)}"
            )


class UnitStack(Stack):
    """Reads frames out of units; subclasses read a part of a unit."""

    def __init__(self, info: StackInfo, source: str, shape: Sequence[int], n_lead: int) -> None:
        super().__init__(info)
        self._map = AxesMap(source)
        self._lead = tuple(shape[:n_lead])
        self._unit_shape = tuple(shape[n_lead:])

    @abstractmethod
    def _part(self, n: int, part: tuple[slice, ...]) -> NDArray[Any]:
        """A part of unit `n`, whose shape is `_unit_shape`; may raise anything.

        `part` has a slice with both ends for each dimension of the unit.
        """

    def read(self, t: int, z: int, channels: Sequence[int]) -> NDArray[Any]:
        """One (t, z) frame, see `Stack.read`."""
        return self._read(t, z, channels, slice(None), slice(None))

    def read_window(
        self, t: int, z: int, channels: Sequence[int], rows: slice, columns: slice
    ) -> NDArray[Any]:
        """A window of a frame, see `Stack.read_window`."""
        if self.info.piece is None:
            return super().read_window(t, z, channels, rows, columns)
        return self._read(t, z, channels, rows, columns)

    def _read(
        self, t: int, z: int, channels: Sequence[int], rows: slice, columns: slice
    ) -> NDArray[Any]:
        t, z, channels = int(t), int(z), [int(c) for c in channels]
        check_frame(self.info, t, z, channels)
        rows, columns = bounds(rows, self.info.size("Y")), bounds(columns, self.info.size("X"))
        with reading(self.info.path, frame_name(self.info, t, z)):
            return self._frame(self._map.index(t, z, rows, columns), channels)

    def _frame(self, index: Sequence[int | slice], channels: Sequence[int]) -> NDArray[Any]:
        """The frame that `index` cuts out of the source array; one unit at a time in memory."""
        source, n_lead = self._map.source, len(self._lead)
        wanted: list[Sequence[int]] = []  # units along each lead dimension
        for axis, size, at in zip(source, self._lead, index, strict=False):
            picked = range(size)[at]
            if isinstance(picked, int):
                wanted.append([picked])
            else:
                wanted.append(list(channels) if axis == "C" else picked)
        part = tuple(
            slice(at, at + 1) if isinstance(at, int) else bounds(at, size)
            for at, size in zip(index[n_lead:], self._unit_shape, strict=True)
        )
        inside = tuple(0 if isinstance(at, int) else slice(None) for at in index[n_lead:])
        lead = [a for a in source[:n_lead] if a in "CYX"]
        if math.prod(len(w) for w in wanted) == 1:  # one unit: its pixels need not be copied
            plane = self._pixels([w[0] for w in wanted], part)[inside]
            plane = plane.reshape(*[1 for _ in lead], *plane.shape)
            return self._map.to_frame(plane, [0] if "C" in lead else channels, self.info.dtype)
        return self._assembled(wanted, part, inside, channels)

    def _assembled(
        self,
        wanted: Sequence[Sequence[int]],
        part: tuple[slice, ...],
        inside: tuple[int | slice, ...],
        channels: Sequence[int],
    ) -> NDArray[Any]:
        """A frame out of several units, each put into its place before the next is read."""
        source, n_lead = self._map.source, len(wanted)
        sizes = dict(zip(source, (len(w) for w in wanted), strict=False))
        sizes |= {a: s.stop - s.start for a, s in zip(source[n_lead:], part, strict=True)}
        sizes["C"] = len(channels)
        frame = np.empty([sizes[a] for a in "CYX"], np.dtype(self.info.dtype))
        axes = [a for a in source if a in "CYX"]
        view = frame if "C" in axes else frame[0]
        view = view.transpose(["CYX"[3 - view.ndim :].index(a) for a in axes])
        of_unit = [a for a in source[n_lead:] if a in "CYX"]
        with np.errstate(over="ignore", invalid="ignore"):  # float64 beyond float32 is infinite
            for at in product(*(range(len(w)) for w in wanted)):
                unit = [w[i] for w, i in zip(wanted, at, strict=True)]
                pixels = self._pixels(unit, part)[inside]
                if "C" in of_unit:
                    pixels = pixels.take(list(channels), of_unit.index("C"))
                view[tuple(i for a, i in zip(source, at, strict=False) if a in "CYX")] = pixels
                del pixels  # before the next is decoded
        return frame

    def _pixels(self, at: Sequence[int], part: tuple[slice, ...]) -> NDArray[Any]:
        """A part of the unit at these positions along the lead dimensions."""
        n = 0
        for i, size in zip(at, self._lead, strict=True):
            n = n * size + i
        return self._part(n, part)


def split_lead(shape: Sequence[int], unit_size: int) -> int | None:
    """How many leading dimensions of `shape` count units of `unit_size` elements; None: no cut."""
    for n_lead in range(len(shape) + 1):
        if math.prod(shape[n_lead:]) == unit_size:
            return n_lead
    return None
